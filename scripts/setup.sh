# Sourced by scripts/demo and scripts/test: makes .venv beside the checkout and installs evomerge
# into it with the pinned versions. Installs again only when what it installs from has changed.
#
# usage: . scripts/setup.sh EXTRAS     (for instance `test`, or nothing)

EXTRAS=${1-}
PYTHON=${PYTHON:-}
if [ -z "$PYTHON" ]; then
  for candidate in python3.11 python3.12 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
      PYTHON=$candidate
      break
    fi
  done
fi
if [ -z "$PYTHON" ]; then
  echo "evomerge needs Python 3.11 or 3.12; install one, or name it: PYTHON=/path/to/python $0" >&2
  exit 2
fi

WANTED=$(cat pyproject.toml constraints.txt | cksum)
STAMP=.venv/.installed-${EXTRAS:-plain}
if [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ]; then
  echo "Installing evomerge into .venv (once; some minutes) ..." >&2
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
  # torch first and alone: its pin is what keeps CPU machines from pulling CUDA.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
    -e ".${EXTRAS:+[$EXTRAS]}"
  printf '%s' "$WANTED" >"$STAMP"
fi

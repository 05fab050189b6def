# Sourced by scripts/demo and scripts/test: makes .venv beside the checkout and installs evomerge
# into it with the pinned versions. Installs again only when what it installs from has changed.
#
# usage: . scripts/setup.sh EXTRAS     (for instance `test`, or nothing)

. scripts/make_venv.sh
EXTRAS=${1-}
WANTED=$(cat pyproject.toml constraints.txt | cksum)
STAMP=.venv/.installed-${EXTRAS:-plain}
if [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ]; then
  echo "Installing evomerge into .venv (once; some minutes) ..." >&2
  make_venv .venv
  # torch first and alone: its pin is what keeps CPU machines from pulling CUDA.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
    -e ".${EXTRAS:+[$EXTRAS]}"
  printf '%s' "$WANTED" >"$STAMP"
fi

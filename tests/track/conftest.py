"""A small job whose candidates are scored at once, and trackers that may not be installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from evomerge.search import run
from tests.search.jobs import LightPool, job_document, write_models


def pytest_configure() -> None:
    # Else trackio writes into the cache of whoever runs the tests, wherever HF_HOME says it is.
    os.environ["TRACKIO_DIR"] = os.path.join(os.environ["XDG_CACHE_HOME"], "trackio")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        (package,) = mark.args
        if importlib.util.find_spec(package) is None:
            if item.config.getoption("--trackers"):
                pytest.fail(f"{package} is not installed, and no tracker may be left out")
            pytest.skip(f"{package} is large: scripts/test --trackers runs this")


@pytest.fixture(scope="package")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("models")
    write_models(folder)
    return job_document(folder)


@pytest.fixture(autouse=True)
def _scored_lightly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "open_job_pool", lambda *given, **named: LightPool())

"""A small job whose candidates are scored at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evomerge.search import run
from tests.search.jobs import LightPool, job_document, write_models


@pytest.fixture(scope="package")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("models")
    write_models(folder)
    return job_document(folder)


@pytest.fixture(autouse=True)
def _scored_lightly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "open_job_pool", lambda *given, **named: LightPool())

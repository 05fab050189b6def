"""A service in this process for each test; its database is prepared once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.service.http import table_process
from tests.service.http.house import House, open_house, prepare
from tests.service.http.tables import Process


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("service") / "data")


@pytest.fixture
def house(template: Path, tmp_path: Path) -> Iterator[House]:
    opened = open_house(tmp_path / "data", template)
    with opened.client:
        yield opened
    opened.database.close()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    """No process reads an uploaded table: every file is one."""
    made = Process()
    monkeypatch.setattr(table_process, "run", made)
    return made

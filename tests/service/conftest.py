"""A database of each kind for every test that asks for `database`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from evomerge.service.database.engine import Database, open_database
from evomerge.service.database.schema import migrate
from evomerge.service.store.people import Project, make_project
from tests.postgres import PASSWORD, Server, serve
from tests.service.jobs import ADMIN

_NUMBERS = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture(scope="session")
def made_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded database with its tables, to be copied: making them takes longer."""
    file = tmp_path_factory.mktemp("made") / "made.db"
    database = open_database(f"sqlite:///{file}")
    migrate(database)
    database.close()
    return file


@pytest.fixture(scope="session")
def made_postgres(postgres: Server) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        database = open_database(postgres.make("made"))
        migrate(database)
        database.close()
    return "made"


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return str(request.param)


@pytest.fixture
def empty_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes the URL of another database without tables."""

    def make() -> str:
        number = next(_NUMBERS)
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / f'service{number}.db'}"
        server: Server = request.getfixturevalue("postgres")
        return server.make(f"empty{number}")

    return make


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with its tables, of this test alone."""
    if kind == "sqlite":
        file = tmp_path / "service.db"
        shutil.copy(request.getfixturevalue("made_sqlite"), file)
        return f"sqlite:///{file}"
    server: Server = request.getfixturevalue("postgres")
    name, made = f"service{next(_NUMBERS)}", request.getfixturevalue("made_postgres")
    with server.connect("postgres") as connection:
        connection.execute(f'create database "{name}" template "{made}"')
    return server.url(name)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture
def project(database: Database) -> Project:
    return make_project(database, "merges", who=ADMIN)

"""Backup while the service works, and restore, of both kinds of database."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
import sqlalchemy

from evomerge.errors import InputError, StorageError
from evomerge.service.database.backup import back_up, restore
from evomerge.service.database.engine import Database, open_database
from evomerge.service.database.schema import check_schema
from evomerge.service.queue import states
from evomerge.service.queue.claim import claim
from evomerge.service.settings import Limits, ServiceSettings
from evomerge.service.store import jobs, people
from evomerge.service.store.events import read
from evomerge.service.store.job import JobFilter
from tests.postgres import Server
from tests.service.jobs import ADMIN, HERE, queued, settings_in

ON_A_SERVER = pytest.mark.parametrize("kind", ["postgres"], indirect=True)


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    return settings_in(tmp_path)


@pytest.fixture
def service(settings: ServiceSettings, made_sqlite: Path) -> Database:
    settings.data.mkdir()
    (settings.data / "evomerge.db").write_bytes(made_sqlite.read_bytes())
    return open_database(settings.database_url)


def test_a_backup_taken_while_jobs_are_submitted_is_whole_and_comes_back(
    service: Database, settings: ServiceSettings, tmp_path: Path
) -> None:
    project = people.make_project(service, "merges", who=ADMIN)
    _, secret = people.make_token(service, name="laptop", person="ann", role="admin", who=ADMIN)
    first = queued(service, project.id, name="first")
    enough, stop = threading.Event(), threading.Event()

    def submit() -> None:
        while not stop.is_set():
            queued(service, project.id)
            enough.set()

    writer = threading.Thread(target=submit)
    writer.start()
    assert enough.wait(60)
    backup = back_up(service, tmp_path / "backups" / "service.db")
    stop.set()
    writer.join()
    assert backup.stat().st_mode & 0o077 == 0
    queued(service, project.id, name="after the backup")
    service.close()
    kept = restore(backup, settings)
    assert kept is not None
    assert kept.exists()
    again = open_database(settings.database_url)
    names = [job.name for job in jobs.find(again, JobFilter(), limit=500).items]
    assert "first" in names
    assert "after the backup" not in names
    for job in jobs.find(again, JobFilter(), limit=500).items:
        assert len(read(again, job.id)) == job.last_event == 1
    assert people.token_of(again, secret) is not None
    assert jobs.get(again, first.id).state == "queued"
    again.close()


def test_a_restore_waits_for_jobs_that_run(
    service: Database, settings: ServiceSettings, tmp_path: Path
) -> None:
    project = people.make_project(service, "merges", who=ADMIN)
    queued(service, project.id)
    backup = back_up(service, tmp_path / "backup.db")
    job = claim(service, HERE, Limits())
    assert job is not None
    states.begin(service, job.id, job.claim, HERE)
    with pytest.raises(InputError, match=f"job {job.id} is running; stop the servers"):
        restore(backup, settings)


def test_a_restore_is_refused_while_a_server_has_the_database_open(
    service: Database, settings: ServiceSettings, tmp_path: Path
) -> None:
    """A server would go on in the file that is moved away."""
    backup = back_up(service, tmp_path / "backup.db")
    people.make_project(service, "merges", who=ADMIN)
    with pytest.raises(InputError, match="a server or a job still uses it; stop all"):
        restore(backup, settings)
    people.make_project(service, "more", who=ADMIN)
    service.close()
    again = open_database(settings.database_url)
    assert {"merges", "more"} <= {project.name for project in people.projects(again)}
    again.close()
    assert os.listdir(settings.data) == ["evomerge.db"]
    assert restore(backup, settings) is not None


def test_what_is_no_backup_is_refused_and_nothing_is_overwritten(
    service: Database, settings: ServiceSettings, tmp_path: Path
) -> None:
    backup = back_up(service, tmp_path / "backup.db")
    before = (settings.data / "evomerge.db").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        back_up(service, backup)
    (tmp_path / "text").write_text("not a database" * 1000)
    damaged = bytearray(backup.read_bytes())
    damaged[4096:] = os.urandom(len(damaged) - 4096)
    (tmp_path / "damaged").write_bytes(damaged)
    for name in ("text", "damaged"):
        with pytest.raises(StorageError, match="not a whole backup"):
            restore(tmp_path / name, settings)
    with pytest.raises(InputError, match="no such file"):
        restore(tmp_path / "missing", settings)
    assert (settings.data / "evomerge.db").read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "pages", "newer"])
def test_a_restore_mends_a_database_that_cannot_be_used(
    service: Database, settings: ServiceSettings, tmp_path: Path, damage: str
) -> None:
    people.make_project(service, "merges", who=ADMIN)
    backup = back_up(service, tmp_path / "backup.db")
    file = settings.data / "evomerge.db"
    if damage == "newer":
        with service.write() as session:
            session.execute(sqlalchemy.text("update alembic_version set version_num = '9999'"))
    service.close()
    content = bytearray(file.read_bytes())
    if damage == "text":
        content[:] = b"not a database" * 1000
    elif damage == "pages":
        content[200:] = b"\xff" * (len(content) - 200)
    file.write_bytes(content)
    broken = open_database(settings.database_url)
    with pytest.raises(StorageError, match="restore"):
        check_schema(broken)
    broken.close()
    kept = restore(backup, settings)
    assert kept is not None
    assert kept.read_bytes()[200:] == content[200:]
    again = open_database(settings.database_url)
    assert [each.name for each in people.projects(again)] == ["merges"]
    again.close()


@ON_A_SERVER
def test_a_server_is_backed_up_with_its_own_programs(
    database: Database, postgres: Server, tmp_path: Path
) -> None:
    """As docs/service.md describes it."""
    with pytest.raises(InputError, match="pg_dump"):
        back_up(database, tmp_path / "backup.db")
    project = people.make_project(database, "merges", who=ADMIN)
    job = queued(database, project.id)
    dump, into = tmp_path / "service.dump", postgres.make("restored")
    where = ["--host=127.0.0.1", f"--port={postgres.port}", "--username=evomerge"]
    name = database.engine.url.database
    for program, arguments in (
        ("pg_dump", ["--format=custom", f"--file={dump}", str(name)]),
        ("pg_restore", ["--no-owner", "--exit-on-error", "--dbname=restored", str(dump)]),
    ):
        if not (postgres.programs / program).exists():
            pytest.skip(f"{program} is not in this package of PostgreSQL")
        subprocess.run([postgres.programs / program, *where, *arguments], check=True)
    again = open_database(into)
    assert jobs.get(again, job.id).name == job.name
    again.close()

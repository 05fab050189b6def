"""Opening the service's database: what is refused, what is shown, and who may write."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from evomerge.errors import EvomergeError, JobError, StorageError
from evomerge.service.database.engine import Database, lock, now, open_database
from tests.postgres import PASSWORD, USER


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:secret@h/d", "sqlite://"])
def test_a_database_of_another_kind_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(JobError, match="--database") as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        open_database(f"sqlite:///{tmp_path}/file/service.db")


def test_a_password_is_in_no_error_and_not_in_what_is_shown() -> None:
    for url in (
        f"postgresql+psycopg://{USER}:a-secret@127.0.0.1:1/none",
        "postgresql://127.0.0.1:1/none?password=a-secret&connect_timeout=2",
    ):
        database = open_database(url)
        with pytest.raises(EvomergeError) as caught, database.read() as session:
            session.execute(text("select 1"))
        assert "a-secret" not in f"{caught.value} {database.shown} {database}"
        assert caught.value.__cause__ is None
        assert "a-secret" in database.url


def test_a_wrong_password_is_one_line_that_says_where_it_is_read(
    postgres: object, monkeypatch: pytest.MonkeyPatch, url: str, kind: str
) -> None:
    if kind == "sqlite":
        pytest.skip("an embedded database has no password")
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(StorageError, match="PGPASSWORD") as caught, open_database(url).read() as s:
        s.execute(text("select 1"))
    assert PASSWORD not in str(caught.value)


def test_the_clock_is_in_seconds_since_the_epoch(database: Database) -> None:
    with database.read() as session:
        assert 1.7e9 < now(session) < 4e9


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    row = "insert into project (id, name, made) values ('p1', 'one', 0)"

    def fail() -> None:
        with database.write() as session:
            session.execute(text(row))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as session:
        assert session.execute(text("select count(*) from project")).scalar() == 0


def test_one_holder_of_a_lock_waits_for_another(database: Database) -> None:
    order: list[str] = []
    holding, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write() as session:
            lock(session, "queue")
            holding.set()
            assert may_end.wait(60)
            order.append("first")

    def follow() -> None:
        with database.write() as session:
            lock(session, "queue")
            order.append("second")

    first = threading.Thread(target=hold)
    first.start()
    assert holding.wait(60)
    second = threading.Thread(target=follow)
    second.start()
    may_end.set()
    first.join()
    second.join()
    assert order == ["first", "second"]


def test_an_embedded_database_is_named_absolutely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_database("sqlite:///here.db").url == f"sqlite:///{tmp_path}/here.db"

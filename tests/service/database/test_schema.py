"""Migrations: up from nothing and from every version with data, by several at once, never down."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from evomerge.errors import StorageError
from evomerge.service.database.engine import open_database
from evomerge.service.database.schema import check_schema, head, migrate, revision_of
from evomerge.service.database.tables import Base
from evomerge.service.queue import told
from evomerge.service.store import audit, jobs, people
from evomerge.service.store.job import JobFilter
from evomerge.service.webhooks import deliveries, subscriptions

EmptyUrl = Callable[[], str]

VERSIONS = {
    "0001": """
insert into project (id, name, made) values ('paaaaaaaaaaaaaaa', 'old', 1.5);
insert into token (id, name, person, role, projects, hash, made)
  values ('t1', 'laptop', 'ann', 'admin', '["paaaaaaaaaaaaaaa"]', 'abc', 2.5);
insert into session (hash, token_id, csrf, made, expires) values ('s', 't1', 'c', 1.0, 2.0);
insert into audit (at, who, act, what, project, detail)
  values (3.5, 'ann', 'job.submit', 'jaaaaaaaaaaaaaaa', 'paaaaaaaaaaaaaaa', '{"kind": "search"}');
insert into job (id, project, owner, kind, name, request, changes, state, wanted, priority, place,
    retries_left, attempts, setbacks, claim, made, used_s, request_sha256, last_event, result)
  values ('jaaaaaaaaaaaaaaa', 'paaaaaaaaaaaaaaa', 'ann', 'search', 'sums', '{"name": "sums"}', '{}',
    'succeeded', 'run', 0, 1.0, 3, 1, 0, 1, 4.5, 5.5, 'abc', 1, '{"headline": "better"}');
insert into event (job, seq, at, name, body)
  values ('jaaaaaaaaaaaaaaa', 1, 4.5, 'state', '{"state": "queued"}');
""",
}
VERSIONS["0002"] = (
    VERSIONS["0001"]
    + """
insert into upload (id, project, owner, name, format, size_bytes, sha256, columns, rows, header,
    made)
  values ('uaaaaaaaaaaaaaaa', 'paaaaaaaaaaaaaaa', 'ann', 'sums.csv', 'csv', 24, 'abc',
    '["question", "answer"]', 1, true, 6.5);
"""
)
VERSIONS["0003"] = (
    VERSIONS["0002"]
    + """
insert into webhook (id, project, owner, name, url, kinds, secret, made)
  values ('waaaaaaaaaaaaaaa', 'paaaaaaaaaaaaaaa', 'ann', 'chat', 'https://hooks.example/x',
    '["job.failed"]', 'whsec_c2VjcmV0', 6.5);
insert into delivery (id, webhook, job, kind, data, made, state, attempts, next_at)
  values ('msg_a', 'waaaaaaaaaaaaaaa', 'jaaaaaaaaaaaaaaa', 'job.failed', '{"state": "failed"}',
    7.5, 'waiting', 1, 8.5);
"""
)
VERSIONS["0004"] = (
    VERSIONS["0003"]
    + """
update job set retries = 5, told = 1;
"""
)
VERSIONS["0005"] = (
    VERSIONS["0004"]
    + """
update job set track = '{"wandb": {"project": "merges"}}';
"""
)
"""Rows of a database as each version wrote them; add those of a new version with its migration."""


def test_every_version_has_rows_to_come_up_from() -> None:
    assert max(VERSIONS) == head()


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_data_of_every_version_comes_up_whole(empty_url: EmptyUrl, version: str) -> None:
    database = open_database(empty_url())
    migrate(database, to=version)
    with database.write() as session:
        for statement in VERSIONS[version].strip().split(";\n"):
            session.connection().exec_driver_sql(statement.rstrip(";"))
    migrate(database)
    check_schema(database)
    [job] = jobs.find(database, JobFilter()).items
    assert (job.name, job.state, job.used_s, job.request) == (
        "sums",
        "succeeded",
        5.5,
        {"name": "sums"},
    )
    assert job.result == {"headline": "better"}
    assert job.track == ({} if version < "0005" else {"wandb": {"project": "merges"}})
    [token] = people.tokens(database)
    assert (token.person, token.projects) == ("ann", ("paaaaaaaaaaaaaaa",))
    assert [entry.act for entry in audit.find(database).items] == ["job.submit"]
    assert [project.name for project in people.projects(database)] == ["old"]
    assert (job.retries, job.retries_left) == (5 if version >= "0004" else 3, 3)
    assert told.untold(database) == []
    if version >= "0003":
        [webhook] = subscriptions.find_webhooks(database)
        assert (webhook.name, webhook.kinds, webhook.waiting) == ("chat", ("job.failed",), 1)
        [claimed] = deliveries.claim(database, most=5, most_each=5)
        assert (claimed.attempt, claimed.data) == (2, {"state": "failed"})
        assert claimed.secrets == ("whsec_c2VjcmV0",)
    database.close()


def test_the_migrations_make_the_tables_that_are_mapped(empty_url: EmptyUrl) -> None:
    database = open_database(empty_url())
    migrate(database)
    with database.engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert found == []
    database.close()


def test_several_servers_may_make_the_tables_at_once(empty_url: EmptyUrl) -> None:
    url = empty_url()

    def make(_: int) -> str | None:
        database = open_database(url)
        migrate(database)
        try:
            return revision_of(database)
        finally:
            database.close()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(make, range(4))) == {head()}


def test_tables_of_a_newer_version_are_left_alone(empty_url: EmptyUrl) -> None:
    database = open_database(empty_url())
    migrate(database)
    with database.write() as session:
        session.execute(text("update alembic_version set version_num = '9999'"))
    for check in (migrate, check_schema):
        with pytest.raises(StorageError, match="newer evomerge"):
            check(database)
    database.close()


def test_a_database_without_tables_is_refused_in_one_line(empty_url: EmptyUrl) -> None:
    database = open_database(empty_url())
    with pytest.raises(StorageError, match="start `evomerge serve` once"):
        check_schema(database)
    database.close()

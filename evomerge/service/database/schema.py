"""The version of the tables: made, brought up to this version, or refused."""

from __future__ import annotations

import functools
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from evomerge.errors import StorageError
from evomerge.service.database.engine import Database, lock_key, storage_errors

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(database: Database, *, to: str = "head") -> None:
    """Make the tables, or change them to what this version needs.

    Safe for several at once: one does it, the others wait and find it done. Raises StorageError
    for a database of a newer version.
    """
    with storage_errors(database.shown):
        if revision_of(database) == head():
            return
        engine = database.engine.execution_options(evomerge_writes=True)
        with engine.begin() as connection:
            if database.is_postgres:
                statement = sqlalchemy.text("select pg_advisory_xact_lock(:key)")
                connection.execute(statement, {"key": lock_key("tables")})
            _refuse_newer(_revision(connection), database.shown)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, to)


def check_schema(database: Database) -> None:
    """Raise StorageError if the tables are not those of this version."""
    with storage_errors(database.shown):
        found = revision_of(database)
    if found == head():
        return
    _refuse_newer(found, database.shown)
    raise StorageError(
        f"{database.shown}: its tables are of version {found or 'none'}, this evomerge needs "
        f"{head()}; start `evomerge serve` once, which brings them up to date"
    )


def revision_of(database: Database) -> str | None:
    """The version of the tables; None if there are none."""
    with storage_errors(database.shown), database.engine.connect() as connection:
        return _revision(connection)


@functools.cache
def head() -> str:
    """The version that this evomerge needs."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def _revision(connection: sqlalchemy.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(found: str | None, shown: str) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise StorageError(
            f"{shown}: its tables are of version {found}, which a newer evomerge made; update "
            "evomerge, or restore a backup"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    # Else alembic splits the folder's path at spaces and colons.
    config.set_main_option("path_separator", "newline")
    return config

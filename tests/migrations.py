"""Optuna's migrations of databases, read once for each process.

Optuna reads and imports their twenty files for every database that it opens or makes, which takes
longer than all else that it does there. They are the same files each time.
"""

from __future__ import annotations

from functools import cache

from alembic.config import Config
from alembic.script import ScriptDirectory
from optuna.storages._rdb.storage import _VersionManager


@cache
def _migrations(location: str | None) -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", location or "")
    return ScriptDirectory.from_config(config)


def _shared(manager: _VersionManager) -> ScriptDirectory:
    config = manager._create_alembic_config()
    return _migrations(config.get_main_option("script_location").replace("%", "%%"))


def read_once() -> None:
    """From now on, in this process and those that are forked from it."""
    _VersionManager._create_alembic_script = _shared

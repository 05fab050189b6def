"""Trials written in few statements are the rows that Optuna's own storage writes."""

from __future__ import annotations

import datetime
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from evomerge.study.trial_rows import TrialStorage

TABLES = ("trials", "trial_values", "trial_params", "trial_user_attributes")


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with sqlite3.connect(path) as database:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        return {
            name: database.execute(f"select * from {name}").fetchall()
            for (name,) in tables
            if name not in {"studies", "version_info", "alembic_version"}
        }


def trials_of(axes: int) -> list[optuna.trial.FrozenTrial]:
    """Trials that ended well, with infinities, without values, without parameters."""
    began = datetime.datetime(2026, 1, 2, 3, 4, 5, 678)
    bounds = {"weight": FloatDistribution(0, 2), "density": FloatDistribution(1e-3, 1, log=True)}
    made = [
        create_trial(
            values=values,
            params={"weight": 0.1 + 0.2, "density": 1e-3},
            distributions=bounds,
            user_attrs={"recipe": "merge_method: ä\n", "items": [1, None, 0.1], "kind": "c"},
            system_attrs={"name": ["a"]},
        )
        for values in ([0.25] * axes, [float("inf")] * axes, [float("-inf")] * axes)
    ]
    made.append(create_trial(state=TrialState.FAIL, user_attrs={"failure": "nan"}))
    made.append(create_trial(values=[1e308] * axes))
    for trial in made:
        trial.datetime_start = began
        trial.datetime_complete = began + datetime.timedelta(seconds=3)
    return made


@pytest.mark.parametrize("axes", [1, 3])
def test_every_table_holds_what_optuna_s_own_storage_writes(tmp_path: Path, axes: int) -> None:
    for name, kind in {"stock": optuna.storages.RDBStorage, "ours": TrialStorage}.items():
        storage = kind(f"sqlite:///{tmp_path / name}")
        study = optuna.create_study(storage=storage, directions=["maximize"] * axes)
        for trial in trials_of(axes):
            study.add_trial(trial)
        waiting = create_trial(state=TrialState.WAITING, user_attrs={"asked": True})
        waiting.datetime_start = datetime.datetime(2026, 1, 2)
        study.add_trial(waiting)
        storage.remove_session()
        storage.engine.dispose()
    stock = rows(tmp_path / "stock")
    assert all(stock[table] for table in TABLES)
    assert rows(tmp_path / "ours") == stock

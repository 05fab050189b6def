"""Writing a study through Optuna, so that Optuna's own tools can open it."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.trial import TrialState, create_trial

from evomerge.errors import RunError
from evomerge.study.postgres import WriterLock
from evomerge.study.reader import CONTENTS, FINALISTS, Contents
from evomerge.study.trial import (
    ATTRIBUTES,
    DIGESTS,
    Parameter,
    Trial,
    attributes_of,
    digest_parameters,
    digest_result,
    sealed,
)

Direction = Literal["maximize", "minimize"]


class Writer:
    """The two Optuna studies of a record: of the search, and of its finalists.

    lock: on the studies if the database is shared.
    """

    def __init__(
        self,
        storage: optuna.storages.RDBStorage,
        lock: WriterLock | None,
        studies: Sequence[optuna.Study],
    ) -> None:
        self._storage = storage
        self._lock = lock
        self._search, self._finals = studies

    @classmethod
    def begin(
        cls,
        storage: optuna.storages.RDBStorage,
        name: str,
        *,
        lock: WriterLock | None,
        axes: Sequence[str],
        directions: Sequence[Direction],
    ) -> Writer:
        """Make the studies, or take those that an interrupted start has left.

        axes: names of the axes of the front, for Optuna's own plots. directions: of the axes;
        without them, higher is better on every axis. An existing study keeps its own directions.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        studies = [
            optuna.create_study(
                storage=storage,
                study_name=each,
                directions=(directions if axes else ()) or ["maximize"] * max(1, len(axes)),
                load_if_exists=True,
            )
            for each in (name, name + FINALISTS)
        ]
        for study in studies:
            if axes and study.metric_names is None:
                with warnings.catch_warnings():
                    # The warning does not matter: only Optuna's own plots read the names.
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    study.set_metric_names(list(axes))
        return cls(storage, lock, studies)

    @classmethod
    def go_on(
        cls, storage: optuna.storages.RDBStorage, name: str, *, lock: WriterLock | None
    ) -> Writer:
        """Open the existing studies."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        studies = [
            optuna.load_study(storage=storage, study_name=each) for each in (name, name + FINALISTS)
        ]
        return cls(storage, lock, studies)

    def check(self, trials: int, *, run_dir: Path) -> None:
        """Raise RunError if another process writes or has written these studies.

        trials: how many they hold if nobody else wrote.
        """
        if self._lock is None or not self._lock.lost():
            return
        studies = (self._search, self._finals)
        if sum(self._storage.get_n_trials(study._study_id) for study in studies) != trials:
            self._lock.release()
            raise RunError(
                f"{run_dir}: another process wrote to this search while the connection to "
                "the database was lost; see what it does, then "
                f"`evomerge resume {shlex.quote(str(run_dir))}`"
            )

    def add(
        self, trial: Trial, shown: Mapping[str, Parameter], values: Sequence[float] | None
    ) -> None:
        """Write a trial in one transaction.

        shown: its parameters with their bounds. values: scores on the axes; None for one score.
        """
        state = TrialState.COMPLETE if trial.failure is None else TrialState.FAIL
        if values is None and trial.score is not None:
            values = [trial.score]
        distributions = {
            name: FloatDistribution(p.low, p.high, log=p.log) for name, p in shown.items()
        }
        attributes = attributes_of(trial)
        digests = {
            "result": digest_result(
                state.name, values or (), [json.dumps(attributes[key]) for key in ATTRIBUTES]
            ),
            "parameters": digest_parameters(
                [
                    (name, trial.parameters[name], distribution_to_json(distribution))
                    for name, distribution in distributions.items()
                ]
            ),
        }
        frozen = create_trial(
            state=state,
            values=None if values is None else list(values),
            params=dict(trial.parameters),
            distributions=distributions,
            user_attrs={**attributes, DIGESTS: digests},
        )
        (self._finals if trial.kind == "finalist" else self._search).add_trial(frozen)

    def note(self, name: str, value: Any) -> None:
        """Record a JSON value under a name, replacing the old value."""
        self._search.set_user_attr(name, sealed(value))

    def keep(self, contents: Contents) -> None:
        """Record what the studies should hold."""
        self.note(CONTENTS, asdict(contents))

    def delete(self) -> None:
        """Remove the studies from the database."""
        for study in (self._search, self._finals):
            self._storage.delete_study(study._study_id)

    def close(self) -> None:
        """Close the database."""
        self._storage.remove_session()
        if self._lock is not None:
            self._lock.release()
        self._storage.engine.dispose()

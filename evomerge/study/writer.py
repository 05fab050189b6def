"""Writing a study as Optuna does, so that its own tools open it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import optuna
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.trial import TrialState, create_trial

from evomerge.study.digests import digest_parameters, digest_result, sealed
from evomerge.study.reader import CONTENTS, FINALISTS, Contents
from evomerge.study.trial import ATTRIBUTES, DIGESTS, Parameter, Trial, attributes_of

Direction = Literal["maximize", "minimize"]


class Writer:
    """The two Optuna studies of a record: of the search, and of its finalists.

    axes: names of the axes of the front, of which Optuna's own pictures tell. directions: of them;
    without them every axis is better when higher. A study that is there keeps its own.
    """

    def __init__(
        self, storage: optuna.storages.RDBStorage, studies: Sequence[optuna.Study]
    ) -> None:
        self._storage = storage
        self._search, self._finals = studies

    @classmethod
    def begin(
        cls,
        storage: optuna.storages.RDBStorage,
        name: str,
        *,
        axes: Sequence[str],
        directions: Sequence[Direction],
    ) -> Writer:
        """Make the studies, or take those that a beginning cut short has left."""
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
                    # Only optuna's own pictures read the names.
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    study.set_metric_names(list(axes))
        return cls(storage, studies)

    @classmethod
    def go_on(cls, storage: optuna.storages.RDBStorage, name: str) -> Writer:
        """The studies that are there."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        names = (name, name + FINALISTS)
        return cls(storage, [optuna.load_study(storage=storage, study_name=n) for n in names])

    def add(
        self, trial: Trial, shown: Mapping[str, Parameter], values: Sequence[float] | None
    ) -> None:
        """Write a trial in one transaction.

        shown: its parameters with their bounds. values: of its axes; None where it has one score.
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
        """Keep a JSON value under a name, replacing what it said before."""
        self._search.set_user_attr(name, sealed(value))

    def keep(self, contents: Contents) -> None:
        """Keep what the studies should hold."""
        self.note(CONTENTS, asdict(contents))

    def counts(self) -> tuple[int, int]:
        """How many trials the search and the finalists have in the database now."""
        search, finals = (
            len(study.get_trials(deepcopy=False)) for study in (self._search, self._finals)
        )
        return search, finals

    def delete(self) -> None:
        """Take both studies out of the database."""
        for study in (self._search, self._finals):
            self._storage.delete_study(study._study_id)

    def close(self) -> None:
        """Let go of the database."""
        self._storage.remove_session()

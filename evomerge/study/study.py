"""The record of one search, open in a process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import filelock
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from evomerge.candidate import Candidate, CandidateKey, Failed, Kind, Outcome, Scored, TaskItems
from evomerge.errors import RunError
from evomerge.evaluate.objective import Means, means_of
from evomerge.job import JobSpec
from evomerge.study.items import ItemFiles
from evomerge.study.storage import open_storage, storage_errors, write_whole
from evomerge.study.trial import Parameter, Trial, attributes_of, read_trial

Direction = Literal["maximize", "minimize"]

FINALISTS = "{name} (finalists)"
"""Study of validation and test scores, apart so that they never mix with search scores."""


class Study:
    """The record of one search. Open it with `create_study`, `resume_study` or `read_study`.

    directions: of the axes of the front where the study is new and the job is of `mode: pareto`;
    without them every axis is better when higher, as is the score of `mode: single`.
    """

    def __init__(
        self,
        run_dir: Path,
        job: JobSpec,
        *,
        url: str,
        lock: filelock.BaseFileLock | None,
        directions: Sequence[Direction] = (),
    ) -> None:
        self.run_dir = run_dir
        self.job = job
        self.items = ItemFiles(run_dir)
        self._lock = lock
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with storage_errors(run_dir):
            storage = open_storage(url)
            self._search, self._finals = (
                _open(storage, name, job, directions)
                for name in (job.name, FINALISTS.format(name=job.name))
            )
            self._trials = {
                trial.key: trial
                for study in (self._search, self._finals)
                for trial in map(read_trial, study.get_trials(deepcopy=False))
            }

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every recorded candidate in the order of generation and index, finalists first."""
        return tuple(self._trials[key] for key in sorted(self._trials))

    def find(self, key: CandidateKey) -> Trial | None:
        """The record of a candidate, or None when it has no result yet."""
        return self._trials.get(key)

    def trials_of(self, kind: Kind) -> tuple[Trial, ...]:
        """Recorded candidates of one kind, in order."""
        return tuple(trial for trial in self.trials if trial.kind == kind)

    def record(
        self,
        candidate: Candidate,
        outcome: Outcome,
        *,
        score: float | None,
        means: Means | None = None,
        values: Sequence[float] | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Trial:
        """Write a candidate's outcome for good: item results first, then the trial.

        means: the tasks' scores; None where they are the plain means of the item results. values:
        the score on each axis in `mode: pareto`; None in `mode: single` or where it failed.
        Recording the same candidate twice is an error of ours. Raises StorageError when the disk
        is full or cannot be written.
        """
        assert candidate.key not in self._trials, f"{candidate.key} is recorded already"
        failed = isinstance(outcome, Failed)
        tasks: Mapping[str, TaskItems] = {} if isinstance(outcome, Failed) else outcome.tasks
        shown = parameters or {}
        trial = Trial(
            key=candidate.key,
            kind=candidate.kind,
            label=candidate.label,
            recipe=candidate.recipe,
            genome=candidate.genome,
            score=score,
            means=means_of(tasks) if means is None else means,
            items={task: len(ids) for task, ids in candidate.items.items()},
            cost=outcome.cost,
            failure=outcome.reason if isinstance(outcome, Failed) else None,
            parameters={name: p.value for name, p in shown.items()},
            stage=candidate.stage,
        )
        frozen = create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            values=[score] if values is None and score is not None else values,
            params=dict(trial.parameters),
            distributions={
                name: FloatDistribution(p.low, p.high, log=p.log) for name, p in shown.items()
            },
            user_attrs=attributes_of(trial),
        )
        with storage_errors(self.run_dir):
            if tasks:
                self.items.write(candidate.key, tasks)
            (self._finals if candidate.kind == "finalist" else self._search).add_trial(frozen)
        self._trials[candidate.key] = trial
        return trial

    def trial(self, key: CandidateKey) -> Trial:
        """The record of a candidate. Raises RunError when there is none."""
        trial = self._trials.get(key)
        if trial is None:
            raise RunError(f"{self.run_dir}: no candidate {key} is recorded; see study.db")
        return trial

    def outcome_of(self, key: CandidateKey) -> Outcome:
        """A recorded candidate's outcome, to the last bit as it was recorded."""
        trial = self.trial(key)
        if trial.failure is not None:
            return Failed(reason=trial.failure, cost=trial.cost)
        return Scored(tasks=self.items_of(key), cost=trial.cost)

    def items_of(self, key: CandidateKey) -> Mapping[str, TaskItems]:
        """Item results of a recorded candidate. Raises RunError when the file is gone."""
        return self.items.read(key)

    def keep_job(self) -> None:
        """Keep the job as it is now, so that the next `resume` needs no overrides again."""
        text = self.job.to_yaml()
        with storage_errors(self.run_dir):
            path = self.run_dir / "job.yaml"
            write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))

    def note(self, name: str, value: Any) -> None:
        """Keep a fact of the whole search (JSON values), replacing what it said before."""
        with storage_errors(self.run_dir):
            self._search.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """A fact kept by `note`, or None."""
        return self._search.user_attrs.get(name)

    def close(self) -> None:
        """Let go of the run directory."""
        for study in {self._search, self._finals}:
            study._storage.remove_session()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(
    storage: optuna.storages.RDBStorage, name: str, job: JobSpec, directions: Sequence[Direction]
) -> optuna.Study:
    """A study of the record, made where it is not there yet; one that is keeps its directions."""
    axes = [f"{axis.task}/{axis.metric}" for axis in job.axes] if job.mode == "pareto" else []
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=(directions if axes else ()) or ["maximize"] * max(1, len(axes)),
        load_if_exists=True,
    )
    if axes and study.metric_names is None:
        with warnings.catch_warnings():
            # Only optuna's own pictures read the names.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(axes)
    return study

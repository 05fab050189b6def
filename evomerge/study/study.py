"""The record of one search, open in a process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from evomerge.study.postgres import WriterLock
from evomerge.study.storage import open_storage, remove_begun, storage_errors, write_whole
from evomerge.study.trial import Parameter, Trial, attributes_of, read_trial

Direction = Literal["maximize", "minimize"]

FINALISTS = "{name} (finalists)"
"""Study of validation and test scores, apart so that they never mix with search scores."""


class Study:
    """The record of one search. Open it with `create_study`, `resume_study` or `read_study`.

    directions: of the axes of the front where the study is new and the job is of `mode: pareto`;
    without them every axis is better when higher, as is the score of `mode: single`.
    """

    made: tuple[Path, ...] = ()
    """Folders that were made for it where it is new, the innermost first."""

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
        self._writer: WriterLock | None = None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with storage_errors(run_dir):
            self._storage = open_storage(url, run_dir=run_dir, writes=lock is not None)
            try:
                self._writer = self._take_writer_lock()
                self._search, self._finals = (
                    _open(self._storage, name, job, directions) if lock else _load(self, name)
                    for name in (job.name, FINALISTS.format(name=job.name))
                )
                self._trials = {trial.key: trial for trial in self._read_trials()}
            except BaseException:
                self.close()
                raise

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
            self._check_writer()
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
            self._check_writer()
            self._search.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """A fact kept by `note`, or None."""
        return self._search.user_attrs.get(name)

    @property
    def begun(self) -> bool:
        """Whether a search has noted or recorded anything."""
        return bool(self._trials) or bool(self._search.user_attrs)

    def discard(self) -> None:
        """Leave nothing of a search that was begun and has recorded no candidate, and close it."""
        assert not self._trials, "what was recorded is kept"
        with storage_errors(self.run_dir):
            self._check_writer()
            for study in (self._search, self._finals):
                self._storage.delete_study(study._study_id)
            # While the lock is held: nobody else begins here meanwhile.
            remove_begun(self.run_dir, self.made)
        self.close()

    def close(self) -> None:
        """Let go of the run directory."""
        self._storage.remove_session()
        if self._writer is not None:
            self._writer.release()
        self._storage.engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def _take_writer_lock(self) -> WriterLock | None:
        engine = self._storage.engine
        if self._lock is None or engine.dialect.name != "postgresql":
            return None
        return WriterLock(engine, self.job.name, run_dir=self.run_dir)

    def _check_writer(self) -> None:
        """Nobody else writes this study, nor has since it was read."""
        if self._writer is None or not self._writer.lost():
            return
        if sum(1 for _ in self._read_trials()) != len(self._trials):
            self._writer.release()
            raise RunError(
                f"{self.run_dir}: another process wrote to this search while the connection to "
                f"the database was lost; see what it does, then `evomerge resume {self.run_dir}`"
            )

    def _read_trials(self) -> Iterator[Trial]:
        for study in (self._search, self._finals):
            yield from map(read_trial, study.get_trials(deepcopy=False))

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load(study: Study, name: str) -> optuna.Study:
    """A study of the record as it is there. Raises RunError where it is not."""
    try:
        return optuna.load_study(study_name=name, storage=study._storage)
    except KeyError:
        run_dir = study.run_dir
        raise RunError(
            f"{run_dir}: nothing is recorded yet; try `evomerge resume {run_dir}`"
        ) from None


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

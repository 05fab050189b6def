"""The record of one search, open in a process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from evomerge.candidate import Candidate, CandidateKey, Failed, Kind, Outcome, Scored, TaskItems
from evomerge.errors import RunError
from evomerge.job import JobSpec
from evomerge.study.storage import open_storage, storage_errors, write_whole
from evomerge.study.trial import Parameter, Trial, attributes_of, read_trial

FINALISTS = "{name} (finalists)"
"""Study of validation and test scores, apart so that they never mix with search scores."""


class Study:
    """The record of one search. Open it with `create_study`, `resume_study` or `read_study`."""

    def __init__(
        self, run_dir: Path, job: JobSpec, *, url: str, lock: filelock.BaseFileLock | None
    ) -> None:
        self.run_dir = run_dir
        self.job = job
        self._lock = lock
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with storage_errors(run_dir):
            storage = open_storage(url)
            self._search = optuna.create_study(
                storage=storage, study_name=job.name, direction="maximize", load_if_exists=True
            )
            self._finals = optuna.create_study(
                storage=storage,
                study_name=FINALISTS.format(name=job.name),
                direction="maximize",
                load_if_exists=True,
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
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Trial:
        """Write a candidate's outcome for good: item results first, then the trial.

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
            means={t: {m: items.mean(m) for m in items.metrics} for t, items in tasks.items()},
            items={task: len(ids) for task, ids in candidate.items.items()},
            cost=outcome.cost,
            failure=outcome.reason if isinstance(outcome, Failed) else None,
            parameters={name: p.value for name, p in shown.items()},
            stage=candidate.stage,
        )
        frozen = create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            value=score,
            params=dict(trial.parameters),
            distributions={
                name: FloatDistribution(p.low, p.high, log=p.log) for name, p in shown.items()
            },
            user_attrs=attributes_of(trial),
        )
        with storage_errors(self.run_dir):
            if tasks:
                self._write_items(candidate.key, tasks)
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
        path = self._items_path(key)
        try:
            rows = pq.ParquetFile(path).read().to_pydict()
        except (OSError, pa.ArrowInvalid) as error:
            raise RunError(
                f"{path}: the item results of {key} cannot be read ({error}); restore the file"
            ) from error
        columns: dict[str, dict[str, dict[int, float]]] = {}
        for task, metric, item, value in zip(
            rows["task"], rows["metric"], rows["item"], rows["outcome"], strict=True
        ):
            columns.setdefault(task, {}).setdefault(metric, {})[item] = value
        return {
            task: TaskItems(
                ids=tuple(next(iter(metrics.values()))),
                metrics={metric: tuple(column.values()) for metric, column in metrics.items()},
            )
            for task, metrics in columns.items()
        }

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

    def _items_path(self, key: CandidateKey) -> Path:
        return self.run_dir / "items" / f"{key}.parquet"

    def _write_items(self, key: CandidateKey, tasks: Mapping[str, TaskItems]) -> None:
        rows = [
            (task, metric, item, value)
            for task, items in tasks.items()
            for metric, values in items.metrics.items()
            for item, value in zip(items.ids, values, strict=True)
        ]
        names, metrics, ids, values = zip(*rows, strict=True)
        table = pa.table(
            {
                "candidate": pa.array([str(key)] * len(rows)).dictionary_encode(),
                "task": pa.array(names).dictionary_encode(),
                "metric": pa.array(metrics).dictionary_encode(),
                "item": pa.array(ids, pa.int32()),
                "outcome": pa.array(values, pa.float64()),
            }
        )
        path = self._items_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda temporary: pq.write_table(table, temporary))

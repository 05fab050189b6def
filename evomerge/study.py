"""The record of a search: an Optuna study plus the item results, in a run directory.

    RUN_DIR/
    ├── job.yaml             the job as it was started
    ├── study.db             the Optuna study (or a PostgreSQL study, where the job names one)
    ├── items/KEY.parquet    what every item said of candidate KEY
    └── run.lock             held by the one process that owns the directory

A trial is written in one transaction, after its item results, so a kill leaves either the whole
trial or none of it. The record does not know how candidates are proposed, built or scored.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy
import sqlalchemy.exc
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge.candidate import (
    Candidate,
    CandidateKey,
    Cost,
    Failed,
    Kind,
    Outcome,
    Scored,
    TaskItems,
)
from evomerge.errors import EvomergeError, JobError, RunError, StorageError, one_line
from evomerge.job import JobSpec, load_job
from evomerge.recipe import Recipe, read_recipe

FINALISTS = "{name} (finalists)"
"""Study of validation and test scores, apart so that they never mix with search scores."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A gene as people read it: its value between its bounds."""

    value: float
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate's record.

    score: the combined objective, higher is better; None when the candidate failed.
    means: task -> metric -> mean over the items used; empty when it failed.
    items: how many items of each task it was scored on.
    genome: (n,) float64 in [0, 1]; None for baselines and what the space cannot express.
    """

    key: CandidateKey
    kind: Kind
    label: str
    recipe: Recipe
    genome: tuple[float, ...] | None
    score: float | None
    means: Mapping[str, Mapping[str, float]]
    items: Mapping[str, int]
    cost: Cost
    failure: str | None


class Study:
    """The record of one search. Open it with `create_study`, `resume_study` or `read_study`."""

    def __init__(
        self, run_dir: Path, job: JobSpec, *, url: str, lock: filelock.BaseFileLock | None
    ) -> None:
        self.run_dir = run_dir
        self.job = job
        self._lock = lock
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with _storage_errors(run_dir):
            storage = _open_storage(url)
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
                for trial in map(_read_trial, study.get_trials(deepcopy=False))
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
        )
        shown = parameters or {}
        frozen = create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            value=score,
            params={name: p.value for name, p in shown.items()},
            distributions={
                name: FloatDistribution(p.low, p.high, log=p.log) for name, p in shown.items()
            },
            user_attrs=_attributes(trial),
        )
        with _storage_errors(self.run_dir):
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
        with _storage_errors(self.run_dir):
            path = self.run_dir / "job.yaml"
            write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))

    def note(self, name: str, value: Any) -> None:
        """Keep a fact of the whole search (JSON values), replacing what it said before."""
        with _storage_errors(self.run_dir):
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


def refuse_existing(run_dir: Path) -> None:
    """Raise RunError when the directory holds a search already."""
    if (run_dir / "job.yaml").exists():
        raise RunError(
            f"{run_dir}: holds a search already; go on with `evomerge resume {run_dir}`, "
            "or start another with --run-dir"
        )


def create_study(run_dir: Path, job: JobSpec) -> Study:
    """Start the record of a new search. Raises RunError when the directory holds one already."""
    refuse_existing(run_dir)
    with _storage_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(run_dir)
        text = job.to_yaml()
        write_whole(run_dir / "job.yaml", lambda path: path.write_text(text, encoding="utf-8"))
    try:
        study = Study(run_dir, job, url=_url(run_dir, job), lock=lock)
        if study.trials:
            study.close()
            raise RunError(
                f"storage: {job.storage} holds a study named {job.name} already; "
                "give the job another name"
            )
    except EvomergeError:
        (run_dir / "job.yaml").unlink()
        lock.release()
        raise
    return study


def resume_study(run_dir: Path, *, overrides: tuple[str, ...] = ()) -> Study:
    """Open the record of a search to go on with it; `overrides` change its job (see load_job)."""
    path = _job_path(run_dir)
    if any(override.partition("=")[0].strip() == "storage" for override in overrides):
        raise JobError(f"--set storage: the record of {run_dir} stays where it began")
    with _storage_errors(run_dir):
        lock = _take_lock(run_dir)
    job = load_job(path, overrides=overrides)
    return Study(run_dir, job, url=_url(run_dir, job), lock=lock)


def read_study(run_dir: Path) -> Study:
    """Open the record of a search to read it, also while another process writes it."""
    job = load_job(_job_path(run_dir))
    if job.storage == "auto" and not (run_dir / "study.db").exists():
        raise RunError(f"{run_dir}: nothing is recorded yet; try `evomerge resume {run_dir}`")
    return Study(run_dir, job, url=_url(run_dir, job), lock=None)


def write_whole(path: Path, write: Any) -> None:
    """Write a file so that a kill leaves the old one or the new one, never a part.

    `write` is called with a temporary path in the same folder, which is then synced and renamed.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _job_path(run_dir: Path) -> Path:
    path = run_dir / "job.yaml"
    if not path.exists():
        raise RunError(f"{run_dir}: no search here (job.yaml is missing); check the path")
    return path


def _url(run_dir: Path, job: JobSpec) -> str:
    if job.storage != "auto":
        return job.storage
    database = str(run_dir / "study.db")
    return sqlalchemy.URL.create("sqlite", database=database).render_as_string()


def _open_storage(url: str) -> optuna.storages.RDBStorage:
    """Raises JobError when the URL of the job is none that can be opened here."""
    try:
        return optuna.storages.RDBStorage(url)
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        raise JobError(
            f"storage: {url}: cannot be opened ({one_line(error)}); write `auto` or "
            "postgresql+psycopg://USER@HOST/DATABASE, with the extra `postgres` installed"
        ) from error


def _take_lock(run_dir: Path) -> filelock.BaseFileLock:
    """The kernel frees the lock when its owner dies, however it dies."""
    lock = filelock.FileLock(run_dir / "run.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RunError(
            f"{run_dir}: another process is running this search; wait for it or stop it first"
        ) from error
    return lock


@contextlib.contextmanager
def _storage_errors(run_dir: Path) -> Iterator[None]:
    """Say in one line that the record cannot be written, and what to do."""
    try:
        yield
    except (
        OSError,
        optuna.exceptions.StorageInternalError,
        sqlalchemy.exc.DatabaseError,
        pa.ArrowException,
    ) as error:
        cause = error.__cause__ or error
        reason = one_line(getattr(cause, "orig", None) or cause)
        raise StorageError(
            f"{run_dir}: the record cannot be written ({reason}); everything recorded before is "
            f"kept: make room, then `evomerge resume {run_dir}`"
        ) from error


def _attributes(trial: Trial) -> dict[str, Any]:
    """Few attributes: Optuna spends some 3 ms of Python on each."""
    return {
        "label": trial.label,
        "scores": {task: dict(means) for task, means in trial.means.items()},
        "candidate": {
            "generation": trial.key.generation,
            "place": trial.key.place,
            "kind": trial.kind,
            "genome": None if trial.genome is None else list(trial.genome),
            "items": dict(trial.items),
            "cost": asdict(trial.cost),
            "failure": trial.failure,
            "recipe": trial.recipe.to_yaml(),
        },
    }


def _read_trial(frozen: FrozenTrial) -> Trial:
    said = frozen.user_attrs["candidate"]
    key = CandidateKey(said["generation"], said["place"])
    genome = said["genome"]
    return Trial(
        key=key,
        kind=said["kind"],
        label=frozen.user_attrs["label"],
        recipe=read_recipe(said["recipe"], where=f"recipe of {key}"),
        genome=None if genome is None else tuple(genome),
        score=frozen.value if frozen.state == TrialState.COMPLETE else None,
        means=frozen.user_attrs["scores"],
        items=said["items"],
        cost=Cost(**said["cost"]),
        failure=said["failure"],
    )

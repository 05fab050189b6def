"""Opening the record of a search: anew, to go on with it, or to read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import filelock
import sqlalchemy

from evomerge.errors import EvomergeError, JobError, RunError
from evomerge.job import JobSpec, load_job
from evomerge.study.storage import remove_begun, storage_errors, write_whole
from evomerge.study.study import Direction, Study


def refuse_existing(run_dir: Path) -> None:
    """Raise RunError when the directory holds a search already."""
    if (run_dir / "job.yaml").exists():
        raise RunError(
            f"{run_dir}: holds a search already; go on with `evomerge resume {run_dir}`, "
            "or start another with --run-dir"
        )


def create_study(run_dir: Path, job: JobSpec, *, directions: Sequence[Direction] = ()) -> Study:
    """Start the record of a new search. Raises RunError when the directory holds one already.

    directions: of the axes in `mode: pareto` (see Study).
    """
    refuse_existing(run_dir)
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    with storage_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(run_dir)
        text = job.to_yaml()
        write_whole(run_dir / "job.yaml", lambda path: path.write_text(text, encoding="utf-8"))
    try:
        study = Study(run_dir, job, url=_url(run_dir, job), lock=lock, directions=directions)
        if study.begun:
            study.close()
            raise RunError(
                f"storage: {job.storage}: holds a study named {job.name} already; "
                "give the job another name"
            )
    except EvomergeError:
        # While the lock is held: nobody else begins here meanwhile.
        remove_begun(run_dir, made)
        lock.release()
        raise
    study.made = tuple(made)
    return study


def resume_study(run_dir: Path, *, overrides: tuple[str, ...] = ()) -> Study:
    """Open the record of a search to go on with it; `overrides` change its job (see load_job)."""
    path = _job_path(run_dir)
    if any(override.partition("=")[0].strip() == "storage" for override in overrides):
        raise JobError(f"--set storage: the record of {run_dir} stays where it began")
    with storage_errors(run_dir):
        lock = _take_lock(run_dir)
    try:
        job = load_job(path, overrides=overrides)
        return Study(run_dir, job, url=_url(run_dir, job), lock=lock)
    except EvomergeError:
        lock.release()
        raise


def read_study(run_dir: Path) -> Study:
    """Open the record of a search to read it, also while another process writes it."""
    job = load_job(_job_path(run_dir))
    if job.storage == "auto" and not (run_dir / "study.db").exists():
        raise RunError(f"{run_dir}: nothing is recorded yet; try `evomerge resume {run_dir}`")
    return Study(run_dir, job, url=_url(run_dir, job), lock=None)


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

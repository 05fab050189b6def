"""Opening the record of a search: to start it, to resume it, or to read it."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock
import sqlalchemy
import sqlalchemy.exc

from evomerge.errors import JobError, RunError
from evomerge.job import JobSpec, load_job, load_recorded_job
from evomerge.study.notes import FACTS
from evomerge.study.postgres import WriterLock
from evomerge.study.reader import Contents, Reader, Record
from evomerge.study.run_folder import check_own, mark_own
from evomerge.study.storage import (
    beginning_errors,
    damaged,
    open_engine,
    open_storage,
    reading_errors,
    remove_begun,
    remove_empty,
    storage_errors,
    write_whole,
)
from evomerge.study.study import Study
from evomerge.study.writer import Direction, Writer

_JOB, _DATABASE, _LOCK = "job.yaml", "study.db", "run.lock"


def refuse_existing(run_dir: Path) -> None:
    """Raise RunError when the directory holds a search already, or a model."""
    if (run_dir / _JOB).exists():
        raise RunError(
            f"{run_dir}: holds a search already; go on with "
            f"`evomerge resume {shlex.quote(str(run_dir))}`, or start another with --run-dir"
        )
    if (run_dir / "config.json").exists():
        raise RunError(f"{run_dir}: holds a model; give the search another --run-dir")


def create_study(
    run_dir: Path,
    job: JobSpec,
    *,
    directions: Sequence[Direction] = (),
    facts: Mapping[str, Any] | None = None,
    before: Callable[[], Path | None] | None = None,
) -> Study:
    """Start the record of a new search, or leave nothing behind.

    The job is written last: a directory without job.yaml holds no search, even after a failed
    start. directions: of the axes in `mode: pareto` (see Writer). facts: what the search depends
    on; its first note. before: writes another file into the directory, and returns its path if the
    file is new. Raises RunError when the directory holds a search already, StorageError.
    """
    refuse_existing(run_dir)
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    with contextlib.ExitStack() as undo, beginning_errors(run_dir):
        undo.callback(remove_empty, made)
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = take_lock(run_dir)
        undo.callback(lock.release)
        refuse_existing(run_dir)
        _refuse_orphan(run_dir, job)
        # This undo runs while the lock is held, so that no other search can start here meanwhile.
        undo.callback(remove_begun, run_dir, made)
        storage = open_storage(_url_of(run_dir, job, mode="rwc"), run_dir=run_dir)
        undo.callback(storage.engine.dispose)
        axes = axes_of(job)
        writer = Writer.begin(
            storage,
            job.name,
            lock=_writer_lock(storage.engine, run_dir, job),
            axes=axes,
            directions=directions,
        )
        undo.callback(writer.close)
        if not Reader(storage.engine, run_dir).is_empty(job.name):
            raise RunError(
                f"storage: {job.storage}: holds a study named {job.name} already; "
                "give the job another name"
            )
        undo.callback(writer.delete)
        notes = {} if facts is None else {FACTS: facts}
        contents = Contents(notes=tuple(notes))
        for name, value in notes.items():
            writer.note(name, value)
        writer.keep(contents)
        beside = None if before is None else before()
        if beside is not None:
            undo.callback(beside.unlink)
        record = Record(notes=json.loads(json.dumps(notes)), contents=contents)
        study = Study(run_dir, job, record, writer=writer, lock=lock)
        study.new, study.made, study.beside = True, tuple(made), beside
        mark_own(run_dir, job)
        text = job.to_yaml()
        write_whole(run_dir / _JOB, lambda path: path.write_text(text, encoding="utf-8"))
        undo.pop_all()
    return study


def check_trusted(run_dir: Path, *, trust: bool) -> None:
    """Raise RunError if the job names code to run and this user did not start the search."""
    check_own(run_dir, load_recorded_job(job_path(run_dir)), trust=trust)


def resume_study(run_dir: Path, *, overrides: tuple[str, ...] = ()) -> Study:
    """Open the record of a search to resume it; `overrides` change its job (see load_job).

    Nothing is written until the study is. Raises RunError, JobError, StorageError.
    """
    path = job_path(run_dir)
    for override in overrides:
        if override.partition("=")[0].strip() in ("storage", "name"):
            key = override.partition("=")[0].strip()
            raise JobError(f"--set {key}: cannot be changed in {run_dir}, which has a record")
    with contextlib.ExitStack() as undo:
        with storage_errors(run_dir):
            lock = take_lock(run_dir)
        undo.callback(lock.release)
        job = load_job(path, overrides=overrides)
        record = None
        if file_of(run_dir, job) is not None:
            record = _read_file(run_dir, job)
        with storage_errors(run_dir):
            storage = open_storage(_url_of(run_dir, job, mode="rw"), run_dir=run_dir)
            undo.callback(storage.engine.dispose)
            writer_lock = _writer_lock(storage.engine, run_dir, job)
            if writer_lock is not None:
                undo.callback(writer_lock.release)
            # A shared database is read only now, when no other process can write to it.
            record = record or _read(storage.engine, run_dir, job)
            writer = Writer.go_on(storage, job.name, lock=writer_lock)
        undo.pop_all()
    return Study(run_dir, job, record, writer=writer, lock=lock)


def read_study(run_dir: Path) -> Study:
    """Open the record of a search to read it, also while another process writes it.

    Nothing is written, so a read-only directory will do.
    """
    job = load_recorded_job(job_path(run_dir))
    with contextlib.ExitStack() as cleanup:
        engine = _engine(run_dir, job, mode="ro")
        cleanup.callback(engine.dispose)
        if job.storage == "auto" and _cut_short(engine):
            # SQLite would first undo an interrupted write. It does so on a copy.
            copy = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
            with reading_errors(run_dir):
                for file in run_dir.glob(f"{_DATABASE}*"):
                    shutil.copy(file, copy)
            engine = open_engine(sqlite_url(copy / _DATABASE, mode="rw"), run_dir=run_dir)
            cleanup.callback(engine.dispose)
        record = _read(engine, run_dir, job)
        release: Callable[[], None] = cleanup.pop_all().close
    return Study(run_dir, job, record, release=release)


def _read(engine: sqlalchemy.Engine, run_dir: Path, job: JobSpec) -> Record:
    """The record of a job; the job must be as it was at the start, except for its budget."""
    reader = Reader(engine, run_dir)
    reader.check_schema()
    names = reader.names()
    if job.storage == "auto" and job.name not in names and len(names) == 1:
        raise RunError(
            f"{run_dir}/{_JOB}: name: {job.name}: the search was started as {names[0]}; put the "
            "name back, or start a new search"
        )
    if file_of(run_dir, job) is None and job.name not in names:
        raise RunError(f"{run_dir}: nothing is recorded in its database under {job.name}")
    record = reader.read(job.name)
    before = (record.notes.get(FACTS) or {}).get("job", {})
    now = job.fingerprint()
    changed = sorted(key for key in now if before.get(key, now[key]) != now[key])
    if changed:
        raise RunError(
            f"{run_dir}: the job's {changed[0]} changed since the search began; put it back as it "
            "was, or start a new search"
        )
    return record


def _read_file(run_dir: Path, job: JobSpec) -> Record:
    """The record in a file that will be written to; its pages are checked too."""
    engine = _engine(run_dir, job, mode="rw")
    try:
        with reading_errors(run_dir), engine.connect() as connection:
            answer = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
        if answer != "ok":
            raise damaged(run_dir, str(answer))
        return _read(engine, run_dir, job)
    finally:
        engine.dispose()


def _writer_lock(engine: sqlalchemy.Engine, run_dir: Path, job: JobSpec) -> WriterLock | None:
    """The lock for writing a study on a server; a file is protected by its directory's lock."""
    if engine.dialect.name != "postgresql":
        return None
    return WriterLock(engine, job.name, run_dir=run_dir)


def _cut_short(engine: sqlalchemy.Engine) -> bool:
    """Whether the last write to a database was cut short, so that it cannot be read as it is."""
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except sqlalchemy.exc.OperationalError as error:
        return getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_READONLY")
    except (sqlalchemy.exc.DatabaseError, UnicodeDecodeError):
        return False  # it is damaged; the reader will report it
    return False


def job_path(run_dir: Path) -> Path:
    """The job of a search. Raises RunError if there is none."""
    path = run_dir / _JOB
    if not path.exists():
        raise RunError(f"{run_dir}: no search here (job.yaml is missing); check the path")
    return path


def _engine(run_dir: Path, job: JobSpec, *, mode: str) -> sqlalchemy.Engine:
    """The engine that reads an existing record. Raises RunError if the record is missing."""
    database = file_of(run_dir, job)
    if database is None:
        return open_engine(job.storage, run_dir=run_dir)
    if not database.exists():
        raise RunError(
            f"{database}: missing, and with it the whole record except items/; put back a copy of "
            f"it, or start again from {run_dir / _JOB} with another --run-dir"
        )
    return open_engine(_url_of(run_dir, job, mode=mode), run_dir=run_dir)


def axes_of(job: JobSpec) -> list[str]:
    """Names of the axes of the front; none for one score."""
    return [f"{axis.task}/{axis.metric}" for axis in job.axes] if job.mode == "pareto" else []


def file_of(run_dir: Path, job: JobSpec) -> Path | None:
    """The database of a record if it is a file, else None."""
    if job.storage == "auto":
        return run_dir / _DATABASE
    file = job.storage.removeprefix("sqlite:///")
    return Path(file) if file not in (job.storage, "") and "?" not in file else None


def _url_of(run_dir: Path, job: JobSpec, *, mode: str) -> str:
    database = file_of(run_dir, job)
    return job.storage if database is None else sqlite_url(database, mode=mode)


def sqlite_url(database: Path, *, mode: str) -> str:
    """Mode `ro` reads an existing database, `rw` writes to it too, `rwc` makes a missing one."""
    file = f"file:{quote(str(database.absolute()))}"
    url = sqlalchemy.URL.create("sqlite", database=file, query={"mode": mode, "uri": "true"})
    return url.render_as_string()


def _refuse_orphan(run_dir: Path, job: JobSpec) -> None:
    """Remove the empty database of an interrupted start; refuse one that has trials."""
    database = run_dir / _DATABASE
    if job.storage != "auto" or not database.exists():
        return
    engine = open_engine(sqlite_url(database, mode="rw"), run_dir=run_dir)
    try:
        with reading_errors(run_dir), engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            query = "SELECT count(*) FROM trials"
            trials = connection.exec_driver_sql(query).scalar() if "trials" in tables else 0
    finally:
        engine.dispose()
    if trials:
        raise RunError(
            f"{run_dir}: holds the record of a search, but its job.yaml is missing; put that back, "
            "or give another --run-dir"
        )
    database.unlink()


def take_lock(run_dir: Path) -> filelock.BaseFileLock:
    """Lock the run directory; the kernel frees the lock whenever its process ends."""
    lock = filelock.FileLock(run_dir / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RunError(
            f"{run_dir}: another process is running this search; wait for it or stop it first"
        ) from error
    return lock

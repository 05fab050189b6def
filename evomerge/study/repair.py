"""Repairing a damaged record: what can still be read goes into a new database.

A search is replayed from its record, and whatever has no record is scored. So a record that lost
some candidates is as good as one that was stopped before them: `resume` scores them again.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import sqlalchemy

from evomerge.errors import RunError, one_line
from evomerge.job import JobSpec, load_recorded_job
from evomerge.study.access import (
    axes_of,
    file_of,
    job_path,
    read_study,
    sqlite_url,
    take_lock,
)
from evomerge.study.notes import FACTS, GENERATION_ITEMS, PASSED_OVER, SELECTION, STAGES
from evomerge.study.reader import Contents, Reader, Record
from evomerge.study.salvage import Salvage, salvage
from evomerge.study.storage import open_engine, open_storage, storage_errors, write_whole
from evomerge.study.study import Study
from evomerge.study.writer import Direction, Writer

_NEEDED: Final = {
    FACTS: "which models, tasks and versions the results depend on",
    GENERATION_ITEMS: "how many items each generation began with",
    PASSED_OVER: "which finalists were passed over",
}
"""Notes that a resumed search cannot make again -> what they say. It makes the others again."""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was found in a run directory, and what was done.

    damage: of the database, in one line; None if there is none. trials: recorded candidates,
    baselines and finalists that are there. lost: those that are not; None if nothing tells how many
    there were. notes: names of lost notes, which `resume` makes again. items, answers: names of
    candidates whose item results or answers are lost or damaged. kept: where the damaged database
    is now.
    """

    run_dir: Path
    damage: str | None
    trials: int
    lost: int | None = 0
    notes: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    kept: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing was damaged, so that nothing was done."""
        return self.damage is None and not self.items and not self.answers

    def lines(self) -> list[str]:
        """For a terminal."""
        if self.whole:
            return [f"{self.run_dir}: nothing is damaged; {self._there}"]
        lines = []
        if self.damage is not None:
            lines.append(f"{self.run_dir}: the database was damaged: {self.damage}")
            lines.append(f"saved: {self._there}")
            lines.append(f"lost: {self._lost}")
            lines.append(f"the damaged database is {self.kept}")
        for what, names in (("item results", self.items), ("answers", self.answers)):
            if names:
                some = f"{', '.join(names[:5])}{' and others' if names[5:] else ''}"
                lines.append(f"{what} of {len(names):,} are lost or damaged: {some}")
        if self.damage is not None or self.items:
            again = f"evomerge resume {shlex.quote(str(self.run_dir))}"
            lines.append(f"next: {again} scores again what is lost")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = asdict(self)
        paths = {name: None if plain[name] is None else str(plain[name]) for name in _PATHS}
        return {**plain, **paths, "whole": self.whole}

    @property
    def _there(self) -> str:
        return f"{self.trials:,} recorded {'model' if self.trials == 1 else 'models'}"

    @property
    def _lost(self) -> str:
        notes = f"; notes of {', '.join(self.notes)}" if self.notes else ""
        if self.lost is None:
            return f"not known how many, because the list of contents is lost{notes}"
        return f"{self.lost:,}{notes}"


_PATHS = ("run_dir", "kept")


def repair_study(run_dir: Path) -> Repair:
    """Put what can be read of a damaged record into a new database, beside the damaged one.

    Item results and answers are only checked: `resume` scores again what is lost of them. A record
    without damage is left as it is.

    Raises RunError where nothing can be saved, or the record is in no file, StorageError.
    """
    job = load_recorded_job(job_path(run_dir))
    database = file_of(run_dir, job)
    if database is None:
        raise RunError(
            f"{run_dir}: its record is in a database on a server; put back a backup of that"
        )
    if not database.exists():
        raise RunError(
            f"{database}: missing, so nothing can be saved; put back a copy of it, or start again "
            f"from {job_path(run_dir)} with another --run-dir"
        )
    with storage_errors(run_dir):
        lock = take_lock(run_dir)
    with lock:
        damage = _damage_of(run_dir, database)
        if damage is None:
            return _checked(run_dir, None, Salvage(listed=True), None)
        with _copied(database) as copy:
            saved = salvage(copy)
        _check(run_dir, job, saved, damage)
        assert saved is not None
        with storage_errors(run_dir):
            kept = _replace(run_dir, job, database, saved)
        return _checked(run_dir, damage, saved, kept)


def _damage_of(run_dir: Path, database: Path) -> str | None:
    """What is wrong with a record; None if it can be read, and its pages are right."""
    with _copied(database) as copy:
        try:
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                [[answer]] = connection.execute("PRAGMA integrity_check(1)").fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            return one_line(error)
    if answer != "ok":
        return one_line(str(answer))
    try:
        with read_study(run_dir) as study:
            for trial in study.trials:
                str(trial.parameters)
    except RunError as error:
        said = str(error).partition(" is damaged: ")[2]
        if not said:
            raise
        return said.partition("; put back")[0]
    return None


@contextlib.contextmanager
def _copied(database: Path) -> Iterator[Path]:
    """A copy of a database, with the journal of an interrupted write."""
    with tempfile.TemporaryDirectory() as folder:
        for file in (database, *database.parent.glob(f"{database.name}-journal")):
            shutil.copy(file, folder)
        yield Path(folder) / database.name


def _check(run_dir: Path, job: JobSpec, saved: Salvage | None, damage: str) -> None:
    """Raise RunError if what was saved is no record that a search can go on with."""
    again = f"put back a copy of it, or start again from {job_path(run_dir)} with another --run-dir"
    if saved is None:
        raise RunError(f"{run_dir}: nothing can be read of its database ({damage}); {again}")
    others = [name for name in saved.names if name != job.name]
    if others:
        raise RunError(
            f"{run_dir}: its database holds other searches too ({', '.join(others)}); {again}"
        )
    lost = set(saved.lost_notes)
    if not saved.listed:  # nothing tells that there were none
        lost |= {FACTS, GENERATION_ITEMS} - set(saved.notes)
    for name in (name for name in _NEEDED if name in lost):
        raise RunError(
            f"{run_dir}: its note of {_NEEDED[name]} is lost, and without it no search can go on "
            f"as it began; {again}"
        )


def _replace(run_dir: Path, job: JobSpec, database: Path, saved: Salvage) -> Path:
    """Write a new database and put it in the place of the damaged one; where that one is now."""
    kept = _free_name(database)

    def write(part: Path) -> None:
        _write(run_dir, job, part, saved)
        try:
            os.link(database, kept)
        except OSError:  # some file systems have no links
            shutil.copy(database, kept)
        journal = Path(f"{database}-journal")
        if journal.exists():  # it belongs to the damaged one, and would be applied to the new one
            journal.replace(f"{kept}-journal")

    write_whole(database, write)
    return kept


def _free_name(database: Path) -> Path:
    names = (database.with_name(f"{database.name}.damaged-{n}") for n in range(1, 10_000))
    return next(name for name in names if not name.exists())


def _write(run_dir: Path, job: JobSpec, file: Path, saved: Salvage) -> None:
    storage = open_storage(sqlite_url(file, mode="rwc"), run_dir=run_dir)
    sqlalchemy.event.listen(storage.engine, "checkout", _do_not_sync)
    axes = axes_of(job)
    directions = saved.directions if len(saved.directions) == len(axes) else ()
    writer = Writer.begin(
        storage,
        job.name,
        lock=None,
        axes=axes,
        directions=cast("tuple[Direction, ...]", directions),
    )
    try:
        for each in saved.trials:
            writer.add(each.trial, each.shown, each.values)
        notes = _notes_of(saved)
        for name, value in notes.items():
            writer.note(name, value)
        finals = sum(each.trial.kind == "finalist" for each in saved.trials)
        counts = (len(saved.trials) - finals, finals)
        writer.keep(Contents(trials=counts, notes=tuple(sorted(notes))))
    finally:
        writer.close()
    engine = open_engine(sqlite_url(file, mode="ro"), run_dir=run_dir)
    try:
        written = Reader(engine, run_dir).read(job.name)
    finally:
        engine.dispose()
    if not _same(written, saved):
        raise RunError(f"{run_dir}: what was saved cannot be written as it was; please report this")


def _notes_of(saved: Salvage) -> dict[str, Any]:
    """The notes for the new database. What rests on lost trials is to be found again."""
    notes = dict(saved.notes)
    if saved.lost or not saved.listed:
        notes.pop(SELECTION, None)
        if STAGES in notes:
            notes[STAGES] = [{**ended, "whole": False} for ended in notes[STAGES]]
    return notes


def _do_not_sync(connection: Any, *_: object) -> None:
    """Else each trial waits for the disk; the whole file is synced before it takes its place."""
    connection.execute("PRAGMA synchronous = OFF")


def _same(written: Record, saved: Salvage) -> bool:
    trials = {each.trial.key: each.trial for each in saved.trials}
    return repr(sorted(written.trials.items())) == repr(sorted(trials.items()))


def _checked(run_dir: Path, damage: str | None, saved: Salvage, kept: Path | None) -> Repair:
    """The repair, after a look at the files beside the database."""
    with read_study(run_dir) as study:
        items = [
            str(trial.key)
            for trial in study.trials
            if trial.results is not None and study.found_items_of(trial.key) is None
        ]
        answers = [str(trial.key) for trial in study.trials if not _has_answers(study, trial.key)]
        return Repair(
            run_dir=run_dir,
            damage=damage,
            trials=len(study.trials),
            lost=saved.lost if saved.listed else None,
            notes=saved.lost_notes,
            items=tuple(items),
            answers=tuple(answers),
            kept=kept,
        )


def _has_answers(study: Study, key: Any) -> bool:
    try:
        study.answers_of(key)
    except RunError:
        return False
    return True

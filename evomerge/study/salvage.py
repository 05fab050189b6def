"""What can still be read of a damaged SQLite record: every row that is there, checked by digests.

A damaged page loses the rows that are on it, and no others. SQLite itself stops at the first
damaged page, so rows are read from both ends of a table, and one by one in between.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.distributions import FloatDistribution, json_to_distribution

from evomerge.study.reader import CONTENTS, FINALISTS, INFINITE, SCHEMA
from evomerge.study.storage import DAMAGE
from evomerge.study.trial import (
    ATTRIBUTES,
    DIGESTS,
    Parameter,
    Trial,
    digest_parameters,
    digest_result,
    read_trial,
    unsealed,
)

_UNREADABLE = (*DAMAGE, RecursionError, sqlite3.Error)
_LEAST_ROW_BYTES = 8
"""A row of a table takes at least so many bytes of the file, so ids go no further than that."""

Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class SavedTrial:
    """A trial as it was recorded. shown: its parameters with their bounds. values: of the axes."""

    trial: Trial
    shown: Mapping[str, Parameter]
    values: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class Salvage:
    """What a damaged record still holds, each part as it was recorded.

    names: of the searches in the database. trials: in the order of recording. lost: trials that
    are there in part, or that the list of contents counts and that are not there. notes: name ->
    value. lost_notes: those that are there in part, or listed and not there. listed: whether the
    list of contents is there; without it, nothing tells what is lost as a whole. directions: of the
    axes, as Optuna names them; empty if they are lost.
    """

    names: tuple[str, ...] = ()
    trials: tuple[SavedTrial, ...] = ()
    lost: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)
    lost_notes: tuple[str, ...] = ()
    listed: bool = False
    directions: tuple[str, ...] = ()


def salvage(database: Path) -> Salvage | None:
    """What a database holds; None if its tables cannot be found. It is opened to be written.

    database: a copy, because SQLite undoes an interrupted write in the file itself.
    """
    connection = sqlite3.connect(database)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # a digest tells it
    try:
        if not _has_tables(connection):
            return None
        tables = _Tables(connection, database.stat().st_size // _LEAST_ROW_BYTES)
        return _salvage(tables)
    except sqlite3.Error:
        return None
    finally:
        connection.close()


def _has_tables(connection: sqlite3.Connection) -> bool:
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    wanted = {"trials", "trial_values", "trial_params", "trial_user_attributes"}
    return wanted <= found


class _Tables:
    """The tables of a damaged database. most: an id that no row has."""

    def __init__(self, connection: sqlite3.Connection, most: int) -> None:
        self._connection = connection
        self._most = most

    def rows(self, table: str, *columns: str) -> list[Row]:
        """The rows of a table that can be read, by their id."""
        query = f"SELECT rowid, {', '.join(columns)} FROM {table} NOT INDEXED"
        found: dict[int, Row] = {}
        if self._read(f"{query} ORDER BY rowid", found):
            return [found[key] for key in sorted(found)]
        first = max(found, default=0) + 1
        from_end: dict[int, Row] = {}
        self._read(f"{query} ORDER BY rowid DESC", from_end)
        for key in range(first, min(from_end, default=self._most)):
            self._read(f"{query} WHERE rowid = {key}", found)
        found |= from_end
        return [found[key] for key in sorted(found)]

    def _read(self, query: str, found: dict[int, Row]) -> bool:
        """Add rows until the end, or until one cannot be read; whether the end was reached."""
        try:
            for key, *row in self._connection.execute(query):
                found[key] = tuple(row)
        except _UNREADABLE:
            return False
        return True


def _salvage(tables: _Tables) -> Salvage:
    version = [row for (row,) in tables.rows("alembic_version", "version_num")]
    if any(found != SCHEMA for found in version):
        raise sqlite3.DatabaseError(f"its schema is {version}, not {SCHEMA}")
    studies = [name for (name,) in tables.rows("studies", "study_name") if isinstance(name, str)]
    notes, partly = _notes(tables)
    contents = notes.pop(CONTENTS, None)
    trials, broken = _trials(tables)
    listed, counted = _listed(contents)
    return Salvage(
        names=tuple(name for name in studies if not name.endswith(FINALISTS)),
        trials=tuple(trials),
        lost=max(broken, counted - len(trials)),
        notes=notes,
        lost_notes=tuple(sorted(({*listed, *partly} - {CONTENTS}) - set(notes))),
        listed=contents is not None,
        directions=_directions(tables),
    )


def _listed(contents: Any) -> tuple[tuple[str, ...], int]:
    """Names of the notes, and the number of the trials, that the list of contents has."""
    if contents is None:
        return (), 0
    return tuple(contents["notes"]), sum(contents["trials"])


def _directions(tables: _Tables) -> tuple[str, ...]:
    rows = tables.rows("study_directions", "study_id", "objective", "direction")
    first = min((row[0] for row in rows), default=None)
    axes = sorted((axis, direction) for study, axis, direction in rows if study == first)
    if [axis for axis, _ in axes] != list(range(len(axes))):
        return ()
    return tuple(str(direction).lower() for _, direction in axes)


def _notes(tables: _Tables) -> tuple[dict[str, Any], set[str]]:
    """The notes that are as they were recorded, and the names of the others."""
    found, broken = {}, set()
    for key, text in tables.rows("study_user_attributes", "key", "value_json"):
        try:
            found[str(key)] = unsealed(json.loads(text))
        except _UNREADABLE:
            broken.add(str(key))
    return found, broken


def _trials(tables: _Tables) -> tuple[list[SavedTrial], int]:
    """The trials that are as they were recorded, and how many others there are."""
    texts: dict[int, dict[str, str]] = defaultdict(dict)
    for trial, key, text in tables.rows("trial_user_attributes", "trial_id", "key", "value_json"):
        texts[trial][key] = text
    values: dict[int, dict[int, Any]] = defaultdict(dict)
    columns = ("trial_id", "objective", "value", "value_type")
    for trial, axis, value, kind in tables.rows("trial_values", *columns):
        values[trial][axis] = INFINITE.get(kind, value)
    parameters: dict[int, list[Row]] = defaultdict(list)
    columns = ("trial_id", "param_name", "param_value", "distribution_json")
    for trial, *row in tables.rows("trial_params", *columns):
        parameters[trial].append(tuple(row))
    known = {*texts, *values, *parameters, *(key for (key,) in tables.rows("trials", "trial_id"))}
    found: dict[Any, SavedTrial] = {}
    for number in sorted(each for each in known if isinstance(each, int)):
        try:
            saved = _trial(
                texts[number],
                [values[number][axis] for axis in sorted(values[number])],
                parameters[number],
            )
        except _UNREADABLE:
            continue
        found.setdefault(saved.trial.key, saved)
    return list(found.values()), len(known) - len(found)


def _trial(texts: Mapping[str, str], values: Sequence[float], rows: Sequence[Row]) -> SavedTrial:
    """A trial. Raises one of `_UNREADABLE` if it is not all there, or not as it was recorded."""
    kept = [texts[key] for key in ATTRIBUTES]
    attributes = dict(zip(ATTRIBUTES, map(json.loads, kept), strict=True))
    digests = json.loads(texts[DIGESTS])
    failed = attributes["candidate"]["failure"] is not None
    if digests["result"] != digest_result("FAIL" if failed else "COMPLETE", values, kept):
        raise ValueError("its digest does not fit")
    if digests["parameters"] != digest_parameters(rows):
        raise ValueError("the digest of its parameters does not fit")
    trial = read_trial(
        attributes,
        values=() if failed else values,
        parameters=lambda: {name: value for name, value, _ in rows},
    )
    str(trial.recipe)  # read now, so that a recipe that cannot be is a lost trial
    return SavedTrial(
        trial=trial, shown=dict(_shown(rows)), values=None if failed else tuple(values)
    )


def _shown(rows: Sequence[Row]) -> Iterator[tuple[str, Parameter]]:
    for name, value, text in rows:
        bounds = json_to_distribution(text)
        if not isinstance(bounds, FloatDistribution):
            raise TypeError(f"{name}: no number")
        yield name, Parameter(value=value, low=bounds.low, high=bounds.high, log=bounds.log)

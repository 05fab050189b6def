"""Compares what two searches recorded, to the last digit: after a change that must change nothing.

    .venv/bin/python scripts/compare_records.py BEFORE AFTER

BEFORE and AFTER are run directories of the same job, searched by two versions of the code. The
files are read as Optuna, pyarrow and json read them, then the outcome as `evomerge.open_run` gives
it. Left out is what cannot be the same twice: times, places of folders, versions, and digests of
texts that hold them. Ends with 0 where all is equal, 1 where anything differs, and 2 where there is
nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import evomerge

Entries = Mapping[str, Any]
"""What a part of a record consists of, such as trials, by name."""

ABSENT = "nothing"
"""What a record holds under a name that only the other has."""

TRIAL_DIGESTS = "sha256"
"""User attribute of a trial: digests of its attributes, of which some are times."""

TIMES_AND_PLACES = frozenset({"at", "run_dir", "root", "versions"})
"""Keys left out wherever they stand, beside those that end in `_s`, which are seconds."""

REFUSED = "refused"
"""The part that stands for a record that `evomerge.open_run` or its tables refuse."""

OUTCOME = ("finished", "better", "verdict", "headline", "candidates", "gain")
"""What is compared of a search's result, beside its winner or front and its tables."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a record.

    values: the name of every value in it -> the value as Python writes it, which is another for
    numbers that differ in one bit.
    """

    entries: int = 0
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A part of two records; differences: name, value before, value after (None: there is none)."""

    part: str
    before: Part
    after: Part
    differences: Sequence[tuple[str, str | None, str | None]]


class Places:
    """Names for the folders of one machine that a record mentions."""

    def __init__(self, run_dir: Path, job: Mapping[str, Any]) -> None:
        models, evaluation = job["models"], job["evaluation"]
        named = {str(run_dir): "RUN_DIR"}
        for number, source in enumerate(models["sources"]):
            named.setdefault(source, f"models.sources[{number}]")
        for number, folder in enumerate(evaluation["task_folders"]):
            named.setdefault(folder, f"evaluation.task_folders[{number}]")
        for key in ("base", "statistics"):
            if models[key] is not None:
                named.setdefault(models[key], f"models.{key}")
        absolute = {path: name for path, name in named.items() if Path(path).is_absolute()}
        # A folder's name may begin with that of another.
        self._named = sorted(absolute.items(), key=lambda item: len(item[0]), reverse=True)

    def replaced(self, text: str) -> str:
        """The text with a name in the place of each folder."""
        for path, name in self._named:
            text = text.replace(path, name)
        return text

    def values(self, value: Any, name: str) -> Iterator[tuple[str, str]]:
        """Every value within a value, under its name; a text of several lines line by line."""
        if isinstance(value, str):
            yield from self._text(self.replaced(value), name)
        elif isinstance(value, Mapping):
            kept = {str(key): each for key, each in value.items() if not _left_out(str(key))}
            if not kept:
                yield name, "{}"
            for key, each in kept.items():
                yield from self.values(each, f"{name}.{self.replaced(key)}")
        elif isinstance(value, list | tuple):
            yield f"{name}, length", repr(len(value))
            for place, each in enumerate(value):
                yield from self.values(each, f"{name}[{place}]")
        elif is_dataclass(value):
            said = {one.name: getattr(value, one.name) for one in fields(value)}
            yield from self.values(said, name)
        elif value is None or isinstance(value, bool | int | float):
            yield name, repr(value)
        elif isinstance(value, evomerge.Recipe):
            yield from self._text(self.replaced(value.to_yaml()), name)
        else:
            yield name, self.replaced(repr(value))

    def _text(self, text: str, name: str) -> Iterator[tuple[str, str]]:
        rows = text.splitlines(keepends=True)
        if len(rows) < 2:
            yield name, repr(text)
            return
        yield f"{name}, lines", repr(len(rows))
        for number, row in enumerate(rows, start=1):
            yield f"{name}, line {number}", repr(row)


def _left_out(key: str) -> bool:
    return key in TIMES_AND_PLACES or key.endswith("_s")


def read_record(run_dir: Path) -> dict[str, Part]:
    """All that a run directory holds, part by part. Raises OSError and ValueError."""
    job = yaml.safe_load((run_dir / "job.yaml").read_text(encoding="utf-8"))
    places = Places(run_dir.resolve(), job)
    parts = {
        "job": {"job.yaml": job},
        **_studies(run_dir, job),
        "item files": dict(_tables(run_dir / "items")),
        "answer files": dict(_tables(run_dir / "answers")),
        "events": dict(_events(run_dir)),
        **_as_opened(run_dir),
    }
    return {
        part: Part(
            entries=len(entries),
            values=dict(
                pair for name, value in entries.items() for pair in places.values(value, name)
            ),
        )
        for part, entries in parts.items()
    }


def _studies(run_dir: Path, job: Mapping[str, Any]) -> dict[str, Entries]:
    """Trials and notes of every study in the database. Raises ValueError where there is none.

    A file is read in a copy, as Optuna may write to what it opens.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parts: dict[str, Entries] = {}
    with tempfile.TemporaryDirectory() as copy:
        for file in run_dir.glob("study.db*"):
            shutil.copy(file, copy)
        url = f"sqlite:///{copy}/study.db" if job["storage"] == "auto" else job["storage"]
        storage = optuna.storages.RDBStorage(url)
        names = sorted(optuna.get_all_study_names(storage))
        for name in names:
            study = optuna.load_study(study_name=name, storage=storage)
            parts[f"trials of {name}"] = dict(_trials(study))
            parts[f"notes of {name}"] = dict(_notes(study))
        storage.remove_session()
        storage.engine.dispose()
    if not any(parts.values()):
        raise ValueError(f"{run_dir}: nothing is recorded in its database")
    return parts


def _as_opened(run_dir: Path) -> dict[str, Entries]:
    """What the package says of a record; only why, where it refuses to read it."""
    try:
        result = evomerge.open_run(run_dir)
        won = result.finished and not result.front
        return {
            "outcome": {name: getattr(result, name) for name in OUTCOME},
            "winner": {"winner": result.winner} if won else {},
            "front": {f"point {number}": point for number, point in enumerate(result.front)},
            "test scores": dict(_rows(result.scores().reset_index(), "model")),
            "table of trials": dict(_rows(result.trials_dataframe(), "candidate")),
            "table of items": dict(_rows_of_candidates(result.items_dataframe())),
        }
    except evomerge.EvomergeError as error:
        return {REFUSED: {"said": str(error)}}


def _trials(study: optuna.Study) -> Iterator[tuple[str, Any]]:
    for trial in study.trials:
        attributes = {k: v for k, v in trial.user_attrs.items() if k != TRIAL_DIGESTS}
        yield (
            f"trial {trial.number}",
            {
                "state": trial.state.name,
                "values": trial.values,
                "parameters": trial.params,
                "distributions": {name: repr(one) for name, one in trial.distributions.items()},
                "attributes": attributes,
            },
        )


def _notes(study: optuna.Study) -> Iterator[tuple[str, Any]]:
    """What a study says of the whole search, without the digest that each note has beside it."""
    yield "directions", [str(direction) for direction in study.directions]
    for name, note in sorted(study.user_attrs.items()):
        sealed = isinstance(note, Mapping) and set(note) == {"sha256", "value"}
        value = note["value"] if sealed else note
        if name == "facts":  # the digest of a section that holds the folders of the models
            value = {**value, "job": {k: v for k, v in value["job"].items() if k != "models"}}
        yield name, value


def _tables(folder: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        yield path.name, {"types": str(table.schema.remove_metadata()), **table.to_pydict()}


def _events(run_dir: Path) -> Iterator[tuple[str, Any]]:
    lines = (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        yield f"line {number}", json.loads(line)


def _rows(table: Any, label: str) -> Iterator[tuple[str, Any]]:
    """Rows of a pandas table, named by their place and what stands in one column."""
    columns = [
        "/".join(filter(None, column)) if isinstance(column, tuple) else column
        for column in table.columns
    ]
    for number, row in enumerate(table.astype(object).to_numpy().tolist(), start=1):
        cells = dict(zip(columns, row, strict=True))
        yield f"row {number} ({cells[label]})", cells


def _rows_of_candidates(table: Any) -> Iterator[tuple[str, Any]]:
    for candidate, rows in table.groupby("candidate", sort=False):
        yield str(candidate), {column: rows[column].tolist() for column in rows.columns}


def compare(before: Mapping[str, Part], after: Mapping[str, Part]) -> list[Comparison]:
    """Every part of either record, in the order of the first.

    Where the package refuses one of them, that is the difference, and not all that it would say.
    """
    parts = dict.fromkeys([*before, *after])
    if REFUSED in parts:
        parts = {part: None for part in parts if part in before and part in after} | {REFUSED: None}
    return [
        _compare_part(part, before.get(part, Part()), after.get(part, Part())) for part in parts
    ]


def _compare_part(part: str, before: Part, after: Part) -> Comparison:
    names = dict.fromkeys([*before.values, *after.values])
    pairs = ((name, before.values.get(name), after.values.get(name)) for name in names)
    return Comparison(
        part=part,
        before=before,
        after=after,
        differences=[(name, old, new) for name, old, new in pairs if old != new],
    )


def lines(comparisons: Sequence[Comparison], *, most: int) -> Iterator[str]:
    """A table of the parts, then the differences by name, at most so many of each part."""
    width = max(len(one.part) for one in comparisons)
    yield f"{'':<{width}}  {'before':>17}  {'after':>17}"
    yield f"{'part':<{width}}  {'entries    values':>17}  {'entries    values':>17}  differ"
    for one in comparisons:
        sides = "  ".join(f"{p.entries:>7}  {len(p.values):>8}" for p in (one.before, one.after))
        yield f"{one.part:<{width}}  {sides}  {len(one.differences) or 'equal':>6}"
    for one in comparisons:
        for name, *values in one.differences[:most]:
            old, new = (ABSENT if value is None else value for value in values)
            yield f"{one.part}: {name}: {old} -> {new}"
        if len(one.differences) > most:
            yield f"{one.part}: and {len(one.differences) - most} more"


def main() -> int:
    """Compare two run directories; the exit code says what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, help="run directory")
    parser.add_argument("after", type=Path, help="run directory")
    parser.add_argument(
        "--most", type=int, default=20, help="differences to print of each part (default: 20)"
    )
    asked = parser.parse_args()
    if asked.before.resolve() == asked.after.resolve():
        parser.error("BEFORE and AFTER are the same directory")
    try:
        before, after = (read_record(run_dir) for run_dir in (asked.before, asked.after))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    comparisons = compare(before, after)
    for line in lines(comparisons, most=asked.most):
        print(line)
    differing = [one.part for one in comparisons if one.differences or one.part == REFUSED]
    print(f"DIFFERENT in {', '.join(differing)}" if differing else "EQUAL")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())

"""Reading a study from its tables: all trials with a few queries, each checked with its digest.

Optuna itself reads a trial's parameters one by one, and writes to the database while it reads.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Select, column, select, table

from evomerge.errors import RunError
from evomerge.evaluate import CandidateKey
from evomerge.study.storage import damaged, reading_errors
from evomerge.study.trial import (
    ATTRIBUTES,
    DIGESTS,
    Trial,
    digest_parameters,
    digest_result,
    is_sealed,
    read_trial,
    unsealed,
)

SCHEMA = "v3.2.0.a"
"""Optuna's name of the schema that this module reads."""

FINALISTS = " (finalists)"
"""Suffix of the study with validation and test scores, which are kept apart from search scores."""

CONTENTS = "contents"
"""Name of the note that lists what a study should hold (see Contents)."""

_STUDIES = table("studies", column("study_id"), column("study_name"))
_NOTES = table("study_user_attributes", column("study_id"), column("key"), column("value_json"))
_TRIALS = table("trials", column("trial_id"), column("study_id"), column("number"), column("state"))
_VALUES = table(
    "trial_values", column("trial_id"), column("objective"), column("value"), column("value_type")
)
_ATTRIBUTES = table(
    "trial_user_attributes", column("trial_id"), column("key"), column("value_json")
)
_PARAMETERS = table(
    "trial_params",
    column("param_id"),
    column("trial_id"),
    column("param_name"),
    column("param_value"),
    column("distribution_json"),
)
_VERSION = table("alembic_version", column("version_num"))
INFINITE = {"INF_POS": float("inf"), "INF_NEG": float("-inf")}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a study should hold at least; after a kill it may hold one trial or note more.

    trials: how many of the search and of the finalists. notes: their names.
    """

    trials: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a study holds: trials, how many of the search and of finalists, notes.

    contents: what it should hold, as its own note lists it.
    """

    trials: Mapping[CandidateKey, Trial] = field(default_factory=dict)
    counts: tuple[int, int] = (0, 0)
    notes: Mapping[str, Any] = field(default_factory=dict)
    contents: Contents = Contents()


class Reader:
    """Reads the database of a run directory. Its methods raise RunError where it is damaged."""

    def __init__(self, engine: Engine, run_dir: Path) -> None:
        self._engine = engine
        self._run_dir = run_dir

    def names(self) -> tuple[str, ...]:
        """Studies in the database, except those of finalists."""
        query = select(_STUDIES.c.study_name).order_by(_STUDIES.c.study_id)
        return tuple(name for (name,) in self._rows(query) if not name.endswith(FINALISTS))

    def check_schema(self) -> None:
        """Refuse tables of another schema."""
        found = [str(version) for (version,) in self._rows(select(_VERSION.c.version_num))]
        if found != [SCHEMA]:
            schema = ", ".join(found) or "missing"
            raise self._damaged(
                f"its schema is {schema}, not {SCHEMA}: unless another version of Optuna wrote it"
            )

    def is_empty(self, name: str) -> bool:
        """Whether nothing is recorded under a name, so that its studies are new."""
        studies = [self._study_id(each) for each in (name, name + FINALISTS)]
        trials = select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id.in_(studies))
        notes = select(_NOTES.c.key).where(_NOTES.c.study_id.in_(studies))
        return not self._rows(trials) and not self._rows(notes)

    def read(self, name: str) -> Record:
        """Everything recorded under a name.

        Another process may write meanwhile, so the list of contents is read before the trials.
        """
        search, finals = (self._study_id(each) for each in (name, name + FINALISTS))
        try:
            notes, contents = self._notes(search)
            of_search, of_finals = (
                self._trials(study, contents, place) for place, study in enumerate((search, finals))
            )
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise self._damaged(f"it cannot be understood: {error!r}") from error
        trials = {trial.key: trial for trial in (*of_search, *of_finals)}
        if len(trials) < len(of_search) + len(of_finals):
            raise self._damaged("a candidate is in it twice")
        counts = (len(of_search), len(of_finals))
        return Record(trials=trials, counts=counts, notes=notes, contents=contents)

    def _study_id(self, name: str) -> int:
        found = self._rows(select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == name))
        if len(found) != 1:
            raise self._damaged(f"it holds no study named {name}")
        return int(found[0][0])

    def _notes(self, study: int) -> tuple[dict[str, Any], Contents]:
        query = select(_NOTES.c.key, _NOTES.c.value_json).where(_NOTES.c.study_id == study)
        documents = {key: json.loads(text) for key, text in self._rows(query)}
        if not is_sealed(documents.get(CONTENTS)):
            raise self._damaged("the list of its contents is missing")
        listed = unsealed(documents.pop(CONTENTS))
        contents = Contents(trials=tuple(listed["trials"]), notes=tuple(listed["notes"]))
        for name in {*documents, *contents.notes}:
            if not is_sealed(documents.get(name)):
                raise self._damaged(f"its note of {name} is missing")
        return {name: unsealed(document) for name, document in documents.items()}, contents

    def _trials(self, study: int, contents: Contents, place: int) -> list[Trial]:
        """Trials of the search (place 0) or of finalists (1), in the order of recording."""
        query = select(_TRIALS.c.trial_id, _TRIALS.c.number, _TRIALS.c.state)
        query = query.where(_TRIALS.c.study_id == study).order_by(_TRIALS.c.trial_id)
        rows = self._rows(query)
        numbers = [number for _, number, _ in rows]
        if len(rows) < contents.trials[place] or numbers != list(range(len(rows))):
            raise self._damaged("some of its trials are missing")
        values = defaultdict(list)
        for trial, _, value, kind in self._of_trials(_VALUES, study, "objective"):
            values[trial].append(INFINITE.get(kind, value))
        texts: dict[int, dict[str, str]] = defaultdict(dict)
        for trial, key, text in self._of_trials(_ATTRIBUTES, study, "key"):
            texts[trial][key] = text
        parameters = self._parameters(study)
        found = []
        for trial, number, state in rows:
            kept = [texts[trial][key] for key in ATTRIBUTES]
            if DIGESTS not in texts[trial]:
                raise self._damaged(f"the digests of trial {number} are missing")
            digests = json.loads(texts[trial][DIGESTS])
            if digests["result"] != digest_result(state, values[trial], kept):
                raise self._damaged(f"trial {number} differs from what was recorded")
            found.append(
                read_trial(
                    dict(zip(ATTRIBUTES, map(json.loads, kept), strict=True)),
                    values=values[trial] if state == "COMPLETE" else (),
                    parameters=self._later(parameters, trial, digests["parameters"]),
                )
            )
        return found

    def _parameters(self, study: int) -> Callable[[], Mapping[int, Sequence[tuple[Any, ...]]]]:
        """Parameters of all trials, read when those of one trial are first needed."""
        rows: dict[int, list[tuple[Any, ...]]] = {}

        def read() -> Mapping[int, Sequence[tuple[Any, ...]]]:
            if not rows:
                for trial, _, *row in self._of_trials(_PARAMETERS, study, "param_id"):
                    rows.setdefault(trial, []).append(tuple(row))
            return rows

        return read

    def _later(
        self,
        parameters: Callable[[], Mapping[int, Sequence[tuple[Any, ...]]]],
        trial: int,
        digest: str,
    ) -> Callable[[], Mapping[str, float]]:
        def read() -> Mapping[str, float]:
            rows = parameters().get(trial, ())
            if digest_parameters(rows) != digest:
                raise self._damaged("the parameters of a trial differ from what was recorded")
            return {name: value for name, value, _ in rows}

        return read

    def _of_trials(self, of: Any, study: int, order: str) -> list[tuple[Any, ...]]:
        """Rows of the trials of a study: the trial, then the table's other columns."""
        others = [each for each in of.c if each.name not in ("trial_id", order)]
        query = select(of.c.trial_id, of.c[order], *others)
        query = query.join(_TRIALS, _TRIALS.c.trial_id == of.c.trial_id)
        query = query.where(_TRIALS.c.study_id == study)
        return self._rows(query if order == "key" else query.order_by(of.c[order]))

    def _rows(self, query: Select[Any]) -> list[tuple[Any, ...]]:
        with reading_errors(self._run_dir), self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def _damaged(self, what: str) -> RunError:
        return damaged(self._run_dir, what)

"""One run of a search, from an open record and a prepared job to the outcome.

The command line, a grid's searches and the Python API all use it, for new and resumed searches.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evomerge.errors import EvomergeError, RunError, StorageError
from evomerge.evaluate import CandidateKey, Say, SelfCheck, Step, quiet_lm_eval
from evomerge.recipe import Recipe, read_recipe
from evomerge.search.events import (
    CandidateDone,
    Event,
    Finished,
    GenerationDone,
    Note,
    Observe,
    Planned,
    Progress,
    Started,
)
from evomerge.search.ledger import Ledger
from evomerge.search.loop import Ending, run_search
from evomerge.search.results.points import SearchOutcome
from evomerge.search.selection.front import select_front
from evomerge.search.selection.winner import select_winner, winner_of_stage
from evomerge.study import FACTS, SELF_CHECKS, STAGES, Study, storage_errors
from evomerge.workers import (
    Pool,
    PreparedJob,
    cache_folder,
    check_unchanged,
    fingerprints_of,
    next_stage,
)
from evomerge.workers import open_pool as open_job_pool

# A whole job: its stages one after another, then the selection.
#
# The record keeps the outcome of each stage before the next one begins. So a resumed job goes on
# in the stage where it stopped, also with another budget. A job without stages is one stage.


def run_job(ledger: Ledger) -> tuple[Ending, SearchOutcome]:
    """Search every stage and select the winner of the last, or the front. Raises WorkerError."""
    job, after = ledger.preparation.job, 0
    for stage in job.searches[:-1]:
        ended = _ended(ledger, stage.name)
        if ended is None:
            ending = run_search(ledger, after=after)
            winner = winner_of_stage(ledger, ending)
            ended = {
                "name": stage.name,
                "generations": ending.last,
                "reason": ending.reason,
                "winner": winner.label,
                "recipe": winner.recipe.to_yaml(),
            }
            ledger.study.note(STAGES, [*(ledger.study.noted(STAGES) or ()), ended])
        elif _lost(ledger, ended):
            winner_of_stage(ledger, run_search(ledger, after=after, until=ended["generations"]))
        after = int(ended["generations"])
        ledger = replace(ledger, preparation=next_stage(ledger.preparation, _winner(ended)))
    ending = run_search(ledger, after=after)
    select = select_front if job.mode == "pareto" else select_winner
    return ending, select(ledger, ending)


def _lost(ledger: Ledger, ended: Mapping[str, Any]) -> bool:
    """Whether trials or item results of an ended stage are lost: it runs again over its record.

    A repair of the record says that trials are.
    """
    study, through = ledger.study, ended["generations"]
    return not ended.get("whole", True) or any(
        study.lacks(trial.key) for trial in study.trials if trial.key.generation <= through
    )


def _winner(ended: Mapping[str, Any]) -> Recipe:
    return read_recipe(ended["recipe"], where=f"the winner of {ended['name']}")


def _ended(ledger: Ledger, name: str) -> dict[str, Any] | None:
    noted = ledger.study.noted(STAGES) or ()
    return next((dict(ended) for ended in noted if ended["name"] == name), None)


EVENTS_FILE = "events.jsonl"

_GENERATION_DONE = re.compile(rb'"event": "generation_done", "generation": (\d{1,9}),')

OpenPool = Callable[[PreparedJob, Path], Pool]
"""(the prepared job, the folder for large arrays of the tensor cache) -> the workers."""

_READ_BYTES = 2**24
"""Bytes read from the end of the file; more than the events of any generation."""


def run_study(
    study: Study,
    preparation: PreparedJob,
    *,
    observe: Observe,
    ray_address: str | None = None,
    cache_dir: Path | None = None,
    open_pool: OpenPool | None = None,
) -> tuple[Ending, SearchOutcome]:
    """Search, or resume the search, until there is an outcome; the study stays open.

    observe: called with every event; RUN_DIR/events.jsonl holds the events too. ray_address: the
    Ray cluster to join. cache_dir: the run directory for large arrays of the tensor cache; by
    default the study's own. open_pool: opens other workers in place of those of the job.
    Raises RunError where something that scores depend on has changed, WorkerError, StorageError.
    """
    now = fingerprints_of(preparation)
    with _EventLog(study.run_dir) as log:

        def tell(event: Event) -> None:
            log.append(event)
            observe(event)

        events = SearchEvents(study, tell, concluded=log.generations)
        go_on(study, now, what="search", say=events.say)
        study.keep_job()
        for note in preparation.notes:
            events.say(f"note: {note}")
        tell(
            Started(
                job=study.job.name,
                run_dir=study.run_dir,
                recorded=len(study.trials),
                study=study,
                preparation=preparation,
                concluded=log.generations,
            )
        )
        folder = cache_folder(cache_dir or study.run_dir, now)

        def open_own(ready: PreparedJob, folder: Path) -> Pool:
            return open_workers(study, ready, folder, events.say, ray_address)

        with quiet_lm_eval(), (open_pool or open_own)(preparation, folder) as pool:
            ledger = Ledger(
                preparation=preparation,
                study=study,
                pool=pool,
                observe=events.step,
                say=events.say,
                plan=events.plan,
            )
            ending, outcome = run_job(ledger)
        tell(
            Finished(
                generations=ending.last,
                reason=ending.reason,
                better=outcome.better,
                headline=outcome.headline(),
                outcome=outcome,
            )
        )
    return ending, outcome


def open_workers(
    study: Study,
    preparation: PreparedJob,
    cache_folder: Path,
    say: Say,
    ray_address: str | None = None,
) -> Pool:
    """Open the workers of a search or a grid; passed self-checks are noted in its record.

    If the workers of a new search cannot be opened, its record is removed again.
    """
    with _discarded_if_refused(study):
        return open_job_pool(
            preparation,
            ray_address=ray_address,
            cache_folder=cache_folder,
            say=say,
            checked=keep_check(study, say),
        )


def go_on(study: Study, now: Mapping[str, Any], *, what: str, say: Say) -> None:
    """Say what changed since a search or a grid began; a new one only notes its facts.

    now: facts of its preparation. Raises RunError where a change may not be accepted: of the job,
    the tasks or the sources.
    """
    before = study.noted(FACTS)
    if before is None:
        study.note(FACTS, now)
        return
    for change in check_unchanged(before, now, where=str(study.run_dir)):
        say(f"note: {change} since the {what} began")


class SearchEvents:
    """Turns the calls of a ledger (see `evaluate.Observer`, `Say` and `Plan`) into events."""

    def __init__(self, study: Study, tell: Callable[[Event], None], *, concluded: int = 0) -> None:
        """concluded: the last generation that has a GenerationDone event already."""
        self._study = study
        self._tell = tell
        self._concluded = concluded

    def step(self, step: Step, key: CandidateKey) -> None:
        """A step of the search."""
        if step == "recorded":
            self._recorded(key)
            return
        self._tell(Progress(step=step, candidate=key))
        if step == "told" and key.generation > self._concluded:
            self._concluded = key.generation
            self._tell(GenerationDone.of(key.generation, self._study))

    def say(self, line: str) -> None:
        """A line for the user."""
        self._tell(Note(text=line))

    def plan(self, keys: Sequence[CandidateKey], items: int) -> None:
        """Models that are scored next."""
        if any(self._study.find(key) is None for key in keys):
            self._tell(Planned(phase=keys[0].phase, candidates=tuple(keys), items=items))

    def _recorded(self, key: CandidateKey) -> None:
        self._tell(CandidateDone.of(self._study.trial(key)))


class _EventLog:
    """The event log: a line of JSON for every event, with its time.

    generations: the last generation that the log reports as done. So each generation is reported
    once, also when the process was killed and the search resumed.
    """

    def __init__(self, run_dir: Path) -> None:
        self.generations = 0
        self._run_dir = run_dir
        self._file = -1

    def __enter__(self) -> _EventLog:
        with storage_errors(self._run_dir):
            # A run directory from someone else may have a link here.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._run_dir / EVENTS_FILE, flags, 0o644)
            size = os.fstat(self._file).st_size
            before = os.pread(self._file, _READ_BYTES, max(0, size - _READ_BYTES))
            self.generations = max(map(int, _GENERATION_DONE.findall(before)), default=0)
            if before and not before.endswith(b"\n"):  # a kill cut a line short
                os.write(self._file, b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, event: Event) -> None:
        """Write one line."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, **event.to_json()}, ensure_ascii=False)
        with storage_errors(self._run_dir):
            os.write(self._file, (line + "\n").encode("utf-8", "surrogatepass"))


def keep_check(study: Study, tell: Say) -> Callable[[SelfCheck], None]:
    """A function that notes each passed self-check in the record and reports it."""

    def keep(check: SelfCheck) -> None:
        noted = study.noted(SELF_CHECKS) or {}
        study.note(SELF_CHECKS, {**noted, check.label: check.to_json()})
        tell(str(check))

    return keep


@contextlib.contextmanager
def _discarded_if_refused(study: Study) -> Iterator[None]:
    """Remove the record of a search that began in this process if its workers cannot be opened."""
    try:
        yield
    except StorageError:
        raise
    except EvomergeError as error:
        if not study.new or study.trials:
            raise
        study.discard()
        # There is nothing to resume.
        raise RunError(f"{error}; nothing was started") from error

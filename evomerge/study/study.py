"""The record of one search, open in a process."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock

from evomerge.errors import RunError
from evomerge.evaluate import (
    Answers,
    Candidate,
    CandidateKey,
    Evaluation,
    Failed,
    Kind,
    Means,
    Scored,
    TaskItems,
    means_of,
)
from evomerge.job import JobSpec
from evomerge.study.answers import AnswerFiles, digest_answers
from evomerge.study.items import ItemFiles
from evomerge.study.notes import NoteName
from evomerge.study.reader import Record
from evomerge.study.storage import remove_begun, storage_errors, write_whole
from evomerge.study.trial import Parameter, Trial, digest_items
from evomerge.study.writer import Writer


class Study:
    """The record of one search. Open it with `create_study`, `resume_study` or `read_study`.

    record: its contents. writer: writes to it; None if it is only read. lock: on the run
    directory. release: closes the database that it is read from.
    """

    new = False
    """Whether it was started in this process."""

    made: tuple[Path, ...] = ()
    """Folders that were made for a new search, the innermost first."""

    beside: Path | None = None
    """Another file that was made for a new search."""

    def __init__(
        self,
        run_dir: Path,
        job: JobSpec,
        record: Record,
        *,
        writer: Writer | None = None,
        lock: filelock.BaseFileLock | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.job = job
        self.items = ItemFiles(run_dir)
        self.answers = AnswerFiles(run_dir)
        self._trials = dict(record.trials)
        self._counts = list(record.counts)
        self._notes = dict(record.notes)
        self._contents = record.contents
        self._writer = writer
        self._lock = lock
        self._release = release

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every recorded candidate in the order of generation and index, finalists first."""
        return self._in_order

    @cached_property
    def _in_order(self) -> tuple[Trial, ...]:
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
        outcome: Evaluation,
        *,
        score: float | None,
        means: Means | None = None,
        values: Sequence[float] | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        blocks: Sequence[Scored] | None = None,
    ) -> Trial:
        """Write a candidate's outcome: item results and answers first, then the trial.

        means: the tasks' scores; None if they are the plain means of the item results. values:
        the score on each axis in `mode: pareto`; None in `mode: single` or if it failed. blocks:
        the results of each block of items. Recording the same candidate twice is an error of ours.
        Raises StorageError when the disk is full or cannot be written.
        """
        assert candidate.key not in self._trials, f"{candidate.key} is recorded already"
        tasks: Mapping[str, TaskItems] = {} if isinstance(outcome, Failed) else outcome.tasks
        answers: Answers = {} if isinstance(outcome, Failed) else outcome.answers
        if answers:
            answers = self.answers.fitting(candidate.key, answers)
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
            results=digest_items(tasks) if tasks else None,
            answers=digest_answers(answers) if answers else None,
            blocks=None if blocks is None else tuple(digest_items(b.tasks) for b in blocks),
        )
        with self._writing() as writer:
            if tasks:
                self.items.write(candidate.key, tasks)
            if answers:
                self.answers.write(candidate.key, answers)
            writer.add(trial, shown, values)
            self._counts[candidate.kind == "finalist"] += 1
        self._trials[candidate.key] = trial
        self.__dict__.pop("_in_order", None)
        return trial

    def trial(self, key: CandidateKey) -> Trial:
        """The record of a candidate. Raises RunError when there is none."""
        trial = self._trials.get(key)
        if trial is None:
            raise RunError(f"{self.run_dir}: no candidate {key} is recorded; see study.db")
        return trial

    def outcome_of(self, key: CandidateKey) -> Evaluation:
        """A recorded candidate's outcome, equal to the recorded one to the last bit."""
        trial = self.trial(key)
        if trial.failure is not None:
            return Failed(reason=trial.failure, cost=trial.cost)
        return Scored(tasks=self.items_of(key), cost=trial.cost)

    def items_of(self, key: CandidateKey) -> Mapping[str, TaskItems]:
        """Item results of a recorded candidate. Raises RunError when they are lost or damaged."""
        return self.items.read(key, self.trial(key).results)

    def found_items_of(self, key: CandidateKey) -> Mapping[str, TaskItems] | None:
        """Item results of a recorded candidate; None when they are lost or damaged."""
        return self.items.find(key, self.trial(key).results)

    def answers_of(self, key: CandidateKey) -> Answers:
        """The answers of a recorded candidate; empty if none were kept.

        Raises RunError when they are lost or damaged, which only concerns who wants to see them.
        """
        digest = self.trial(key).answers
        return {} if digest is None else self.answers.read(key, digest)

    def lacks(self, key: CandidateKey) -> bool:
        """Whether a candidate has no record, or its item results are lost or damaged."""
        trial = self.find(key)
        return trial is None or (trial.failure is None and self.found_items_of(key) is None)

    def restore_items(
        self,
        key: CandidateKey,
        tasks: Mapping[str, TaskItems],
        *,
        means: Means,
        answers: Answers | None = None,
    ) -> None:
        """Write again the lost or damaged item results of a recorded candidate.

        means: the tasks' scores from these results. answers: written again too, if they are those
        that were recorded. Raises RunError if the results differ from the
        recorded ones, StorageError.
        """
        trial = self.trial(key)
        same = means == trial.means
        if trial.results is not None:
            same = digest_items(tasks) == trial.results
        if not same:
            raise self.items.unlike(key)
        self.items.write(key, tasks)
        if answers and trial.answers is not None:
            answers = self.answers.fitting(key, answers)
            if digest_answers(answers) == trial.answers:
                self.answers.write(key, answers)

    def keep_job(self) -> None:
        """Write the current job, so that the next `resume` needs no overrides."""
        text = self.job.to_yaml()
        if self._writer is None:
            raise RunError(f"{self.run_dir}: the record is closed, or was opened to be read")
        with storage_errors(self.run_dir):
            path = self.run_dir / "job.yaml"
            write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))

    def note(self, name: NoteName, value: Any) -> None:
        """Record a fact of the whole search (JSON values; see `notes`), replacing the old value."""
        with self._writing(name) as writer:
            writer.note(name, value)
        self._notes[name] = json.loads(json.dumps(value))

    def noted(self, name: NoteName) -> Any:
        """A fact recorded by `note`, or None."""
        return copy.deepcopy(self._notes.get(name))

    @contextlib.contextmanager
    def _writing(self, *notes: str) -> Iterator[Writer]:
        """Write to the record, then update its list of contents. notes: names of new notes."""
        writer = self._writer
        if writer is None:
            raise RunError(f"{self.run_dir}: the record is closed, or was opened to be read")
        with storage_errors(self.run_dir):
            writer.check(sum(self._counts), run_dir=self.run_dir)
            before = self._contents
            yield writer
            self._contents = replace(
                before,
                trials=(self._counts[0], self._counts[1]),
                notes=tuple(sorted({*before.notes, *notes})),
            )
            if self._contents != before:
                writer.keep(self._contents)

    def discard(self) -> None:
        """Close a search that was started and has recorded no candidate, and remove all of it."""
        assert not self._trials, "what was recorded is kept"
        assert self._writer is not None, "the record was opened to be read"
        with storage_errors(self.run_dir):
            self._writer.check(0, run_dir=self.run_dir)
            self._writer.delete()
            # Done while the lock is held, so that no other search can start here meanwhile.
            if self.beside is not None:
                self.beside.unlink(missing_ok=True)
            remove_begun(self.run_dir, self.made)
        self.close()

    def close(self) -> None:
        """Release the run directory and the database."""
        writer, self._writer = self._writer, None  # after this the study can only be read
        if writer is not None:
            writer.close()
        if self._release is not None:
            self._release()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The typed events of a search, for displays, logs and a user's own code.

    Checking      the job is read; models, tasks and search space are opened and checked
    Started       the job is ready and its record open; workers are started, work begins
    Note          a line for the user, for example that a worker was lost and replaced
    Planned       models that the final selection scores next, and on how many items each
    Progress      a step inside a generation: asked, merged, scored, told
    CandidateDone a baseline, a genome or a finalist is recorded, with its scores
    GenerationDone all candidates of a generation are recorded
    Finished      the winner or the front, and what may be claimed of it

Events come in order. A resumed search sends no CandidateDone and no GenerationDone again for what
it takes from its record, but it sends the steps `asked` and `told` of its optimiser again.
`to_json` gives plain values, as `events.jsonl` holds them; they can be sent to another process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.evaluate import CandidateKey, Phase, Step
from evomerge.search.results.points import SearchOutcome
from evomerge.study import Study, Trial

if TYPE_CHECKING:
    from evomerge.workers import PreparedJob


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a search."""

    @property
    def name(self) -> str:
        """What kind of event it is, as JSON names it: `candidate_done`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def to_json(self) -> dict[str, Any]:
        """Plain values; the first, `event`, is the kind."""
        shown = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.repr}
        return {"event": self.name, **{name: _plain(value) for name, value in shown.items()}}


@dataclass(frozen=True, kw_only=True)
class Checking(Event):
    """The models, tasks and search space of the job are checked; there is no record yet."""


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Work begins.

    recorded: number of candidates in the record already. study, preparation: the open record and
    the prepared job, for displays; when the search has ended the record can only be read. An event
    that was sent to another process does not have them. concluded: the last generation that has a
    GenerationDone event.
    """

    job: str
    run_dir: Path
    recorded: int
    study: Study = field(repr=False, compare=False)
    preparation: PreparedJob = field(repr=False, compare=False)
    concluded: int = field(default=0, repr=False, compare=False)

    def recorded_events(self) -> Iterator[CandidateDone | GenerationDone]:
        """The events of all that the record holds already, which a resumed search does not send.

        For a receiver that may have missed some of them when the search was killed.
        """
        last = 0
        for trial in self.study.trials:
            generation = trial.key.generation
            for number in range(last + 1, min(generation - 1, self.concluded) + 1):
                yield GenerationDone.of(number, self.study)
            last = max(last, min(generation - 1, self.concluded))
            yield CandidateDone.of(trial)
        for number in range(last + 1, self.concluded + 1):
            yield GenerationDone.of(number, self.study)

    def __getstate__(self) -> dict[str, object]:
        """The fields that can be sent to another process; an open record cannot."""
        local = ("study", "preparation")
        return {name: value for name, value in vars(self).items() if name not in local}


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """A line for the user; the search goes on."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """Models that are scored next, on `items` items each."""

    phase: Phase
    candidates: tuple[CandidateKey, ...]
    items: int


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """A step of a candidate, or of a generation ("asked" and "told": the key's place is 0)."""

    step: Step
    candidate: CandidateKey


@dataclass(frozen=True, kw_only=True)
class CandidateDone(Event):
    """A candidate is recorded.

    score: the combined objective, higher is better; None where it failed. means: task -> metric ->
    mean over its items. failure: why it has no score.
    """

    phase: Phase
    candidate: CandidateKey
    label: str
    score: float | None
    means: Mapping[str, Mapping[str, float]]
    items: int
    failure: str | None
    merge_s: float
    evaluate_s: float

    @classmethod
    def of(cls, trial: Trial) -> CandidateDone:
        """The event of a recorded candidate."""
        return cls(
            phase=trial.key.phase,
            candidate=trial.key,
            label=trial.label,
            score=trial.score,
            means=trial.means,
            items=trial.item_count,
            failure=trial.failure,
            merge_s=trial.cost.merge_s,
            evaluate_s=trial.cost.evaluate_s,
        )


@dataclass(frozen=True, kw_only=True)
class GenerationDone(Event):
    """A generation is recorded and told to the optimiser; best, mean: of its combined scores."""

    generation: int
    scored: int
    failed: int
    best: float | None
    mean: float | None

    @classmethod
    def of(cls, generation: int, study: Study) -> GenerationDone:
        """The event of a recorded generation."""
        trials = [
            trial for trial in study.trials_of("genome") if trial.key.generation == generation
        ]
        scores = [trial.score for trial in trials if trial.score is not None]
        return cls(
            generation=generation,
            scored=len(scores),
            failed=len(trials) - len(scores),
            best=max(scores, default=None),
            mean=sum(scores) / len(scores) if scores else None,
        )


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The search has ended; its record holds the outcome.

    reason: why it ended. better: whether the outcome is above the parents and the best start.
    """

    generations: int
    reason: str
    better: bool
    headline: str
    outcome: SearchOutcome = field(repr=False, compare=False)


Observe = Callable[[Event], object]
"""Called with every event, in order. An exception from it ends the search, which can be resumed."""


def unobserved(event: Event) -> None:
    """Do nothing with an event."""


def _plain(value: Any) -> Any:
    if isinstance(value, CandidateKey | Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value

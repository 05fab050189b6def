"""Models that are scored again at the end, on all items of a split, and their records.

Who they are and what is made of their scores is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evomerge.candidate import (
    MOST_FINALISTS,
    Candidate,
    CandidateKey,
    Scored,
    Split,
    TaskItems,
    count_items,
)
from evomerge.ledger import Ledger
from evomerge.recipe import Recipe
from evomerge.search import Ending
from evomerge.standing import Role
from evomerge.study import Trial
from evomerge.study.notes import PASSED_OVER

VALIDATION = -1
TEST = -2
"""Generations of the finalists on each split."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A model that is scored again at the end."""

    label: str
    role: Role
    recipe: Recipe
    genome: tuple[float, ...] | None = None


def entrant_of(trial: Trial, role: Role) -> Entrant:
    """A recorded candidate that is scored again."""
    return Entrant(label=trial.label, role=role, recipe=trial.recipe, genome=trial.genome)


def once_each(entrants: Sequence[Entrant]) -> list[Entrant]:
    """The first of those that are the same merge: random search has no mean apart from its best."""
    kept: dict[str, Entrant] = {}
    for entrant in entrants:
        kept.setdefault(entrant.recipe.to_yaml(), entrant)
    return list(kept.values())


def score_entrants(
    ledger: Ledger, ending: Ending, entrants: Sequence[Entrant], generation: int, *, first: int = 0
) -> list[tuple[Entrant, Trial]]:
    """Every entrant's trial on all items of a split, in order; the same merge is scored once.

    generation: VALIDATION or TEST. first: entrants of this selection scored there before. Places
    follow from how long the search was and from the order of the entrants, so that an interrupted
    selection finds its records and an extended search never takes old ones for new.
    """
    suite, job = ledger.preparation.suite, ledger.preparation.job
    split: Split = "validation" if generation == VALIDATION else "test"
    tasks = job.search_tasks if generation == VALIDATION else job.all_tasks
    items = {task: suite.items(task, split) for task in tasks}
    begin = ending.last * MOST_FINALISTS + _passed_over(ledger, ending, generation) + first
    merges = once_each(entrants)
    candidates = [
        Candidate(
            key=CandidateKey(generation, begin + place),
            kind="finalist",
            label=entrant.label,
            recipe=entrant.recipe,
            items=items,
            genome=entrant.genome,
        )
        for place, entrant in enumerate(merges)
    ]
    ledger.plan([candidate.key for candidate in candidates], count_items(items))
    trials = ledger.complete(candidates)
    known = {one.recipe.to_yaml(): trial for one, trial in zip(merges, trials, strict=True)}
    return [(entrant, known[entrant.recipe.to_yaml()]) for entrant in entrants]


def tested_before(trials: Iterable[Trial], last: int) -> int:
    """How many selections scored models on the test items before the one after generation `last`.

    There are some where a search that had ended went on, with more to spend.
    """
    rounds = {
        trial.key.selected_after
        for trial in trials
        if trial.key.generation == TEST and trial.score is not None
    }
    return sum(after < last for after in rounds)


def pass_over(ledger: Ledger, ending: Ending, generation: int, count: int) -> None:
    """Give up the first `count` places of a split, all of which failed.

    So the next resume tries again what may have failed for the machine it ran on.
    """
    spent = _passed_over(ledger, ending, generation) + count
    if spent + count <= MOST_FINALISTS:
        noted = ledger.study.noted(PASSED_OVER) or {}
        ledger.study.note(PASSED_OVER, {**noted, _round(ending, generation): spent})


def why_unscored(trial: Trial) -> str | None:
    """Why a trial has no score to compare, or None where it has one."""
    if trial.score is None:
        return trial.failure or "it has no score"
    return None if math.isfinite(trial.score) else f"its score is {trial.score}"


def items_of(ledger: Ledger, trial: Trial) -> Mapping[str, TaskItems]:
    """The item results of a trial that was scored."""
    outcome = ledger.study.outcome_of(trial.key)
    assert isinstance(outcome, Scored)
    return outcome.tasks


def _passed_over(ledger: Ledger, ending: Ending, generation: int) -> int:
    noted = ledger.study.noted(PASSED_OVER) or {}
    return int(noted.get(_round(ending, generation), 0))


def _round(ending: Ending, generation: int) -> str:
    return f"{generation} after {ending.last}"

"""The models that are scored again at the end of a search, on all items of a split."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evomerge.evaluate import (
    MOST_FINALISTS,
    Candidate,
    CandidateKey,
    ItemIds,
    Objective,
    Role,
    Scored,
    Scores,
    Split,
    TaskItems,
    count_items,
    simultaneous_differences,
)
from evomerge.recipe import Recipe
from evomerge.search.baselines import BASE, UNIFORM_SOUP, parent_labels
from evomerge.search.ledger import Ledger
from evomerge.search.loop import Ending
from evomerge.study import PASSED_OVER, Trial

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
    """Each merge once: of entrants with the same recipe, the first."""
    kept: dict[str, Entrant] = {}
    for entrant in entrants:
        kept.setdefault(entrant.recipe.to_yaml(), entrant)
    return list(kept.values())


def score_entrants(
    ledger: Ledger, ending: Ending, entrants: Sequence[Entrant], generation: int, *, first: int = 0
) -> list[tuple[Entrant, Trial]]:
    """Every entrant's trial on all items of a split, in order; the same merge is scored once.

    generation: VALIDATION or TEST. first: number of entrants that this selection scored there
    before. Places follow from the length of the search and the order of the entrants. So an
    interrupted selection finds its records again, and an extended search never takes old records
    for new ones.
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
            keep_answers=True,
        )
        for place, entrant in enumerate(merges)
    ]
    ledger.plan([candidate.key for candidate in candidates], count_items(items))
    trials = ledger.complete(candidates)
    known = {entrant.recipe.to_yaml(): trial for entrant, trial in zip(merges, trials, strict=True)}
    return [(entrant, known[entrant.recipe.to_yaml()]) for entrant in entrants]


def tested_before(trials: Iterable[Trial], last: int) -> int:
    """How many selections scored models on the test items before the one after generation `last`.

    There are some where an ended search was extended by a larger budget.
    """
    rounds = {
        trial.key.selected_after
        for trial in trials
        if trial.key.generation == TEST and trial.score is not None
    }
    return sum(after < last for after in rounds)


def pass_over(ledger: Ledger, ending: Ending, generation: int, count: int) -> None:
    """Skip the first `count` places of a split, which all failed.

    So the next resume tries these models again: the machine may have been the cause.
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


# The starts of a search, and which of them are scored on validation items beside the candidates.
#
# The base, the parents, soups and default merges were scored as generation 0, on search items. A
# search must not end below the best of them, so every start that may be the best one is scored
# again.


RULED_OUT = 0.001
"""Highest chance that the best start is not scored on validation items: once in 1,000 searches."""


def starts_to_validate(ledger: Ledger) -> list[Entrant]:
    """The starts that may be the best one, in the order in which they were made.

    These always include the base, the best parent and the best untuned merge, and all parents where
    a constraint compares with the best of them. A space that excludes its starts, for example
    pruning, has only the best start that it can express: there a smaller model is wanted although a
    larger one is better.
    """
    space, objective = ledger.preparation.space, ledger.preparation.objective
    fittest = ledger.fittest("baseline")
    roles = roles_of(ledger)
    if space.exclusive:
        inside = [trial for trial in fittest if space.encode(trial.recipe) is not None]
        return [entrant_of(trial, "baseline") for trial in inside[:1]]
    always = {trial.label for trial in fittest if roles[trial.label] == "base"}
    for role in ("parent", "baseline"):
        always |= {trial.label for trial in [t for t in fittest if roles[t.label] == role][:1]}
    if any(constraint.of == "best_source" for constraint in objective.constraints):
        always |= {trial.label for trial in fittest if roles[trial.label] == "parent"}
    ruled_out = _ruled_out(ledger, fittest)
    in_order = sorted(fittest, key=lambda trial: trial.key)
    return [
        entrant_of(trial, roles[trial.label])
        for trial in in_order
        if trial.label in always or trial.label not in ruled_out
    ]


def rivals(ledger: Ledger, known: Sequence[str] = ()) -> list[Entrant]:
    """Models to compare the winner with on test items: base, parents, soup, the starts `known`.

    The winners of the stages before are rivals too. Where a space excludes its starts, the best
    start by search score is added, because it is not among the finalists.
    """
    baselines = {trial.label: trial for trial in ledger.study.trials_of("baseline")}
    parents = parent_labels(ledger.preparation.job.models.sources)
    roles = roles_of(ledger)
    best = ledger.fittest("baseline")[:1] if ledger.preparation.space.exclusive else []
    labels = dict.fromkeys([BASE, *parents, UNIFORM_SOUP, *known, *(trial.label for trial in best)])
    return [
        *(entrant_of(baselines[label], roles[label]) for label in labels),
        *stage_winners(ledger),
    ]


def stage_winners(ledger: Ledger) -> list[Entrant]:
    """The winners of the stages before: a stage must not end below them."""
    winners = ledger.preparation.winners
    entrants = []
    for place, (name, recipe) in enumerate(winners.items()):
        before = dict(list(winners.items())[:place])
        whole = recipe.model_copy(update={"stages": before}).without_unused()
        entrants.append(Entrant(label=f"winner of {name}", role="stage", recipe=whole))
    return entrants


def roles_of(ledger: Ledger) -> dict[str, Role]:
    """Label of a start -> its role: the base, a parent, or `baseline` for an untuned merge."""
    parents = parent_labels(ledger.preparation.job.models.sources)
    known: dict[str, Role] = {BASE: "base", **dict.fromkeys(parents, "parent")}
    labels = [trial.label for trial in ledger.study.trials_of("baseline")]
    return {label: known.get(label, "baseline") for label in labels}


def _ruled_out(ledger: Ledger, trials: Sequence[Trial]) -> set[str]:
    """Labels of trials that another trial is surely above, on the search items of both.

    The test is over all pairs at once, so the best trial is ruled out with a chance of at most
    RULED_OUT. The better trial must also be no lower in any constraint's metric, so a trial that
    breaks a constraint does not rule out one that keeps it.
    """
    objective = ledger.preparation.objective
    scores = {trial.label: items_of(ledger, trial) for trial in trials}
    pairs = [
        (a, b)
        for a, b in itertools.combinations(trials, 2)
        if a.recipe != b.recipe and _ids(scores[a.label]) == _ids(scores[b.label])
    ]
    differences = simultaneous_differences(
        objective,
        [(scores[a.label], scores[b.label]) for a, b in pairs],
        seed=ledger.preparation.job.optimizer.seed,
        confidence=1.0 - RULED_OUT,
    )
    out = set()
    for (a, b), difference in zip(pairs, differences, strict=True):
        if difference.settled:
            above, below = (a, b) if difference.interval.value > 0.0 else (b, a)
            if _as_constrained(objective, above, below):
                out.add(below.label)
    return out


def _ids(scores: Scores) -> ItemIds:
    return {task: items.ids for task, items in scores.items()}


def _as_constrained(objective: Objective, above: Trial, below: Trial) -> bool:
    """Whether `above` is no lower than `below` in any metric of a constraint."""
    metrics = [constraint.metric for constraint in objective.constraints]
    return all(metric.mean(above.means) >= metric.mean(below.means) for metric in metrics)

"""From the end of a search to its winner: finalists, validation, test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import MOST_FINALISTS, Candidate, CandidateKey, Scored, Split, TaskItems
from evomerge.errors import WorkerError
from evomerge.evaluate.intervals import difference_interval
from evomerge.evaluate.objective import Means, means_of
from evomerge.ledger import Ledger
from evomerge.optimize.baselines import BASE, UNIFORM_SOUP, parent_labels
from evomerge.recipe import Recipe
from evomerge.search import Ending
from evomerge.selection.selection import ConstraintCheck, Selection
from evomerge.standing import Role, stand
from evomerge.study import Trial

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


def select_winner(ledger: Ledger, ending: Ending) -> Selection:
    """Score the finalists on validation, the winner and its rivals on test, and keep the outcome.

    Raises WorkerError when a model that must be scored fails.
    """
    validation = _validate(ledger, ending)
    winner, _ = validation[0]
    test = _score(ledger, ending, _rivals(ledger, winner), TEST)
    selection = _conclude(ledger, winner, validation, test)
    ledger.study.note("selection", selection.to_json())
    return selection


def winner_of_stage(ledger: Ledger, ending: Ending) -> Entrant:
    """What the next stage begins from: the best of the finalists on the validation items.

    Raises WorkerError when none can be scored.
    """
    return _validate(ledger, ending)[0][0]


def _validate(ledger: Ledger, ending: Ending) -> list[tuple[Entrant, Trial]]:
    """The finalists on the validation items, the best first."""
    validation = _score(ledger, ending, _finalists(ledger, ending), VALIDATION)
    fitness = ledger.fitness([trial for _, trial in validation], ledger.thresholds())
    ranked = [validation[place] for place in np.argsort(fitness, kind="stable")]
    if ranked[0][1].score is None:
        raise WorkerError(f"no finalist could be scored: {ranked[0][1].failure}")
    return ranked


def _finalists(ledger: Ledger, ending: Ending) -> list[Entrant]:
    """Means first: where scores tie, the average of many candidates is the safer choice."""
    space = ledger.preparation.space
    entrants = []
    means: dict[str, NDArray[np.float64]] = {}
    if ending.means:
        half = ending.means[len(ending.means) // 2 :]
        means["average of the second half's means"] = np.mean(half, axis=0)
        means["last mean"] = ending.means[-1]
    for label, genome in means.items():
        entrants.append(_of_genome(label, genome, space.decode(genome)))
    count = ledger.preparation.job.evaluation.finalists
    genomes = ledger.fittest("genome")
    within = [t for t in genomes if ending.first < t.key.generation <= ending.last]
    for trial in within[:count]:
        entrants.append(_of_trial(trial, "finalist"))
    baselines = ledger.fittest("baseline")
    if space.exclusive:
        # A pruned model is wanted although the whole one is better.
        inside = [trial for trial in baselines if space.encode(trial.recipe) is not None]
        return _once_each([*entrants, *(_of_trial(trial, "baseline") for trial in inside[:1])])
    entrants += _stage_winners(ledger)
    entrants += [_of_trial(trial, "baseline") for trial in baselines[:1]]
    return _once_each(entrants)


def _stage_winners(ledger: Ledger) -> list[Entrant]:
    """What the stages before delivered: a stage must not end below them."""
    winners = ledger.preparation.winners
    entrants = []
    for place, (name, recipe) in enumerate(winners.items()):
        before = dict(list(winners.items())[:place])
        whole = recipe.model_copy(update={"stages": before}).without_unused()
        entrants.append(Entrant(label=f"winner of {name}", role="stage", recipe=whole))
    return entrants


def _rivals(ledger: Ledger, winner: Entrant) -> list[Entrant]:
    """The winner first, then what it must beat."""
    baselines = {trial.label: trial for trial in ledger.study.trials_of("baseline")}
    parents = parent_labels(ledger.preparation.job.models.sources)
    roles: dict[str, Role] = {BASE: "base", **dict.fromkeys(parents, "parent")}
    entrants = [
        Entrant(label=winner.label, role="winner", recipe=winner.recipe, genome=winner.genome)
    ]
    best = [trial.label for trial in ledger.fittest("baseline")[:1]]
    for label in dict.fromkeys([BASE, *parents, UNIFORM_SOUP, *best]):
        entrants.append(_of_trial(baselines[label], roles.get(label, "baseline")))
    return [*entrants, *(one for one in _stage_winners(ledger) if one.label != winner.label)]


def _score(
    ledger: Ledger, ending: Ending, entrants: Sequence[Entrant], generation: int
) -> list[tuple[Entrant, Trial]]:
    """Every entrant on all items of the split.

    Places follow from how long the search was and from the order of the entrants, so that an
    interrupted selection finds its records and an extended search never takes old ones for new.
    """
    suite, job = ledger.preparation.suite, ledger.preparation.job
    split: Split = "validation" if generation == VALIDATION else "test"
    tasks = job.search_tasks if generation == VALIDATION else job.all_tasks
    items = {task: suite.items(task, split) for task in tasks}
    candidates = [
        Candidate(
            key=CandidateKey(generation, ending.last * MOST_FINALISTS + place),
            kind="finalist",
            label=entrant.label,
            recipe=entrant.recipe,
            items=items,
            genome=entrant.genome,
        )
        for place, entrant in enumerate(entrants)
    ]
    return list(zip(entrants, ledger.complete(candidates), strict=True))


def _conclude(
    ledger: Ledger,
    winner: Entrant,
    validation: Sequence[tuple[Entrant, Trial]],
    test: Sequence[tuple[Entrant, Trial]],
) -> Selection:
    objective, seed = ledger.preparation.objective, ledger.preparation.job.optimizer.seed
    failed = [trial for _, trial in test if trial.score is None]
    if failed:
        raise WorkerError(f"{failed[0].label} failed on the test items: {failed[0].failure}")
    scores = {entrant.label: _items(ledger, trial) for entrant, trial in test}
    best_parent = max(
        (entrant.label for entrant, _ in test if entrant.role == "parent"),
        key=lambda label: objective.score(means_of(scores[label])),
    )
    won = scores[winner.label]
    return Selection(
        winner=winner.label,
        recipe=winner.recipe,
        genome=winner.genome,
        test_key=test[0][1].key,
        validation=tuple(
            stand(e.label, e.role, _items(ledger, t), objective=objective, seed=seed)
            for e, t in validation
            if t.score is not None
        ),
        test=tuple(
            stand(e.label, e.role, scores[e.label], objective=objective, seed=seed) for e, _ in test
        ),
        best_parent=best_parent,
        gain=difference_interval(objective, won, scores[best_parent], seed=seed),
        gain_over_soup=difference_interval(objective, won, scores[UNIFORM_SOUP], seed=seed),
        constraints=_check_constraints(ledger, test),
        items={"validation": dict(validation[0][1].items), "test": dict(test[0][1].items)},
    )


def _check_constraints(
    ledger: Ledger, test: Sequence[tuple[Entrant, Trial]]
) -> tuple[ConstraintCheck, ...]:
    objective = ledger.preparation.objective
    by_role: dict[Role, list[Means]] = {}
    for entrant, trial in test:
        by_role.setdefault(entrant.role, []).append(trial.means)
    thresholds = objective.thresholds(base=by_role["base"][0], sources=by_role["parent"])
    won = by_role["winner"][0]
    return tuple(
        ConstraintCheck(
            task=constraint.metric.task,
            metric=constraint.metric.key,
            score=won[constraint.metric.task][constraint.metric.key],
            wanted=threshold,
        )
        for constraint, threshold in zip(objective.constraints, thresholds, strict=True)
    )


def _items(ledger: Ledger, trial: Trial) -> Mapping[str, TaskItems]:
    outcome = ledger.study.outcome_of(trial.key)
    assert isinstance(outcome, Scored)
    return outcome.tasks


def _of_genome(label: str, genome: NDArray[np.float64], recipe: Recipe) -> Entrant:
    return Entrant(label=label, role="finalist", recipe=recipe, genome=tuple(genome.tolist()))


def _of_trial(trial: Trial, role: Role) -> Entrant:
    return Entrant(label=trial.label, role=role, recipe=trial.recipe, genome=trial.genome)


def _once_each(entrants: Sequence[Entrant]) -> list[Entrant]:
    """The first of those that are the same merge: random search has no mean apart from its best."""
    kept: dict[str, Entrant] = {}
    for entrant in entrants:
        kept.setdefault(entrant.recipe.to_yaml(), entrant)
    return list(kept.values())

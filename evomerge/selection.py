"""Which candidate really won: finalists on validation items, the winner on test items.

A candidate's own search score is no guide, for it is the luckiest of many. So the finalists (means
of the optimiser's distribution, the best few, the best baseline) are scored again on validation
items that no candidate saw, and the one that wins there is scored once on the test items, beside
the base, every parent and the soups. Nothing here proposes candidates or writes models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import MOST_FINALISTS, Candidate, CandidateKey, Scored, Split, TaskItems
from evomerge.errors import WorkerError
from evomerge.evaluate.intervals import Interval, difference_interval
from evomerge.evaluate.objective import Means, means_of
from evomerge.ledger import Ledger
from evomerge.optimize.baselines import BASE, UNIFORM_SOUP, parent_labels
from evomerge.recipe import Recipe, read_recipe
from evomerge.search import Ending
from evomerge.standing import Role, Standing, read_standing, stand
from evomerge.study import Trial

VALIDATION = -1
TEST = -2
"""Generations of the finalists on each split."""


@dataclass(frozen=True, kw_only=True)
class ConstraintCheck:
    """What the winner made of a constraint on the test items."""

    task: str
    metric: str
    score: float
    wanted: float

    @property
    def kept(self) -> bool:
        """Whether the winner is at or above what was wanted."""
        return self.score >= self.wanted


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The outcome of a search.

    validation: the finalists, best first. test: the winner first, then base, parents, baselines.
    gain: winner minus the best parent on the test items, paired over items; gain_over_soup: the
    same against the uniform soup. items: split -> task -> items scored.
    """

    winner: str
    recipe: Recipe
    genome: tuple[float, ...] | None
    test_key: CandidateKey  # the winner's record on the test items
    validation: tuple[Standing, ...]
    test: tuple[Standing, ...]
    best_parent: str
    gain: Interval
    gain_over_soup: Interval
    constraints: tuple[ConstraintCheck, ...]
    items: Mapping[str, Mapping[str, int]]

    @property
    def better(self) -> bool:
        """Whether the winner is above the best parent at all."""
        return self.gain.value > 0

    @property
    def settled(self) -> bool:
        """Whether the interval of the gain leaves out zero."""
        return self.gain.low > 0 or self.gain.high < 0

    def headline(self) -> str:
        """What was gained over which parent, in one honest sentence."""
        gain = f"{self.gain.value:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}]"
        against = f"against the best parent ({self.best_parent}) on unseen test items"
        kept = all(check.kept for check in self.constraints)
        more = self._said_of_base() + ("" if kept else " A constraint is NOT KEPT.")
        if not self.better:
            return f"No gain: the winner ({self.winner}) scores {gain} {against}.{more}"
        if not self.settled:
            return f"Not settled: the winner ({self.winner}) scores {gain} {against}.{more}"
        return f"Gained {gain}: the winner ({self.winner}) {against}.{more}"

    def _said_of_base(self) -> str:
        """A gain over parents that are all below the base must not look like more than it is."""
        score_of = {(entry.role, entry.label): entry.score.value for entry in self.test}
        base = max((s for (role, _), s in score_of.items() if role == "base"), default=None)
        parents = [score for (role, _), score in score_of.items() if role == "parent"]
        if base is None or not parents or base <= max(parents):
            return ""
        winner = next(score for (role, _), score in score_of.items() if role == "winner")
        return f" The base alone scores {base:.3f}, above every parent; the winner {winner:.3f}."

    def lines(self) -> list[str]:
        """The outcome for a terminal: the headline, then the test scores."""
        width = max(len(entry.label) for entry in self.test)
        rows = [
            f"  {entry.label:<{width}}  {entry.score.value:.3f} "
            f"[{entry.score.low:.3f}, {entry.score.high:.3f}]  {entry.role}"
            for entry in self.test
        ]
        soup = self.gain_over_soup
        return [
            self.headline(),
            f"Against the uniform soup: {soup.value:+.3f} [{soup.low:+.3f}, {soup.high:+.3f}].",
            "Test scores with 95% intervals:",
            *rows,
            *(
                f"  constraint {check.task}/{check.metric}: {check.score:.3f}, wanted "
                f"{check.wanted:.3f}: {'kept' if check.kept else 'NOT KEPT'}"
                for check in self.constraints
            ),
        ]

    def standing(self, label: str) -> Standing:
        """A model's scores on the test items."""
        return next(entry for entry in self.test if entry.label == label)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_selection` reads back equal, and the headline in words."""
        return {**asdict(self), "recipe": self.recipe.to_yaml(), "headline": self.headline()}


def read_selection(document: Mapping[str, Any]) -> Selection:
    """The selection kept in a record (`study.noted("selection")`)."""
    genome = document["genome"]
    return Selection(
        winner=document["winner"],
        recipe=read_recipe(document["recipe"], where="the winner's recipe"),
        genome=None if genome is None else tuple(genome),
        test_key=CandidateKey(**document["test_key"]),
        validation=tuple(read_standing(entry) for entry in document["validation"]),
        test=tuple(read_standing(entry) for entry in document["test"]),
        best_parent=document["best_parent"],
        gain=Interval(**document["gain"]),
        gain_over_soup=Interval(**document["gain_over_soup"]),
        constraints=tuple(ConstraintCheck(**check) for check in document["constraints"]),
        items=document["items"],
    )


@dataclass(frozen=True, kw_only=True)
class _Entrant:
    """A model that is scored again at the end."""

    label: str
    role: Role
    recipe: Recipe
    genome: tuple[float, ...] | None = None


def select_winner(ledger: Ledger, ending: Ending) -> Selection:
    """Score the finalists on validation, the winner and its rivals on test, and keep the outcome.

    Raises WorkerError when a model that must be scored fails.
    """
    validation = _score(ledger, ending, _finalists(ledger, ending), VALIDATION)
    thresholds = ledger.thresholds()
    fitness = ledger.fitness([trial for _, trial in validation], thresholds)
    order = np.argsort(fitness, kind="stable")
    winner = validation[order[0]][0]
    if validation[order[0]][1].score is None:
        raise WorkerError(f"no finalist could be scored: {validation[0][1].failure}")
    test = _score(ledger, ending, _rivals(ledger, winner), TEST)
    selection = _conclude(ledger, winner, [validation[i] for i in order], test)
    ledger.study.note("selection", selection.to_json())
    return selection


def _finalists(ledger: Ledger, ending: Ending) -> list[_Entrant]:
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
    within = [trial for trial in genomes if trial.key.generation <= ending.generations]
    for trial in within[:count]:
        entrants.append(_of_trial(trial, "finalist"))
    entrants += [_of_trial(trial, "baseline") for trial in ledger.fittest("baseline")[:1]]
    return _once_each(entrants)


def _rivals(ledger: Ledger, winner: _Entrant) -> list[_Entrant]:
    """The winner first, then what it must beat."""
    baselines = {trial.label: trial for trial in ledger.study.trials_of("baseline")}
    parents = parent_labels(ledger.preparation.job.models.sources)
    roles: dict[str, Role] = {BASE: "base", **dict.fromkeys(parents, "parent")}
    entrants = [
        _Entrant(label=winner.label, role="winner", recipe=winner.recipe, genome=winner.genome)
    ]
    best = [trial.label for trial in ledger.fittest("baseline")[:1]]
    for label in dict.fromkeys([BASE, *parents, UNIFORM_SOUP, *best]):
        entrants.append(_of_trial(baselines[label], roles.get(label, "baseline")))
    return entrants


def _score(
    ledger: Ledger, ending: Ending, entrants: Sequence[_Entrant], generation: int
) -> list[tuple[_Entrant, Trial]]:
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
            key=CandidateKey(generation, ending.generations * MOST_FINALISTS + place),
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
    winner: _Entrant,
    validation: Sequence[tuple[_Entrant, Trial]],
    test: Sequence[tuple[_Entrant, Trial]],
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
    ledger: Ledger, test: Sequence[tuple[_Entrant, Trial]]
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


def _of_genome(label: str, genome: NDArray[np.float64], recipe: Recipe) -> _Entrant:
    return _Entrant(label=label, role="finalist", recipe=recipe, genome=tuple(genome.tolist()))


def _of_trial(trial: Trial, role: Role) -> _Entrant:
    return _Entrant(label=trial.label, role=role, recipe=trial.recipe, genome=trial.genome)


def _once_each(entrants: Sequence[_Entrant]) -> list[_Entrant]:
    """The first of those that are the same merge: random search has no mean apart from its best."""
    kept: dict[str, _Entrant] = {}
    for entrant in entrants:
        kept.setdefault(entrant.recipe.to_yaml(), entrant)
    return list(kept.values())

"""What a search maximises: scores of tasks, combined or separate, and the constraints to keep.

Only this module turns "higher is better" into a fitness or losses to be minimised, and flips the
sign of metrics that are better when lower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import TaskError
from evomerge.evaluate.candidate import Evaluation, Failed, Split, TaskItems
from evomerge.evaluate.metric import (
    CountItems,
    FindMetric,
    Means,
    Metric,
    fold,
    group_metric,
    leaves_of,
)
from evomerge.job import Aggregate, ConstraintSpec, ObjectiveSpec

_PENALTY = 10.0
"""Fitness lost at a relative shortfall of 1, in spreads of the scores."""

Scores = Mapping[str, TaskItems]
"""task -> its scores, item by item."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One objective: a metric and its weight."""

    metric: Metric
    weight: float


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A metric that must reach `at_least`, times the score of `of` where that is given."""

    metric: Metric
    at_least: float
    of: Literal["base", "best_source"] | None

    def shortfall(self, value: float, threshold: float) -> float:
        """How far `value` is below `threshold`, in units of `shortfall_unit`."""
        return max(0.0, threshold - value) / shortfall_unit(threshold)


def shortfall_unit(threshold: float) -> float:
    """The unit of shortfalls below a threshold: the size of the threshold, or 1 if it is 0."""
    return abs(threshold) if threshold != 0.0 else 1.0


def penalty_unit(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fitness that a relative shortfall of 1 costs among candidates with these scores, (...,).

    scores: (..., n), finite. Ten times their spread, or 10 where the spread is below 1.
    """
    spread: NDArray[np.float64] = np.ptp(scores, axis=-1)
    return _PENALTY * np.maximum(1.0, spread)


class Objective:
    """Combines scores of tasks into one number, or keeps each that has weight as an axis.

    aggregate: `mean`, sum(w s) / sum(w), a lower-is-better score counted as -s; `geometric`,
    exp(sum(w log s) / sum(w)), 0 as soon as a weighted score is 0 or below; `min`, the lowest
    score. In `min`, weights only select: an objective of weight 0 is left out, all others count the
    same.
    """

    def __init__(
        self,
        *,
        terms: Sequence[Term],
        aggregate: Aggregate,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        for term in terms:
            if aggregate != "mean" and term.weight > 0.0 and not term.metric.higher_is_better:
                raise TaskError(
                    f"objectives: {term.metric} is better when lower, which aggregate: "
                    f"{aggregate} cannot combine; use aggregate: mean or another metric"
                )
        for constraint in constraints:
            if not constraint.metric.higher_is_better:
                raise TaskError(
                    f"constraints: {constraint.metric} is better when lower, so at_least "
                    "would keep it bad; use another metric"
                )
        self.terms = tuple(terms)
        self.constraints = tuple(constraints)
        self.aggregate = aggregate
        self._on: Mapping[Split, Objective] = {}
        self._weights = np.array([term.weight for term in terms])  # (terms,)
        self._signs = np.array([1.0 if term.metric.higher_is_better else -1.0 for term in terms])

    @classmethod
    def build(
        cls,
        objectives: Sequence[ObjectiveSpec],
        *,
        aggregate: Aggregate,
        constraints: Sequence[ConstraintSpec] = (),
        find: FindMetric,
        count: CountItems | None = None,
    ) -> Objective:
        """The objective of a job, as it is on the search items; see `on`.

        count: needed for groups whose tasks are weighted by their size. Raises TaskError for
        metrics that are unknown or do not fit.
        """

        sizes = count or _unsized

        def on(split: Split) -> Objective:
            def metric_of(scored: ObjectiveSpec | ConstraintSpec) -> Metric:
                if not scored.members:
                    return find(scored.task, scored.metric)
                return group_metric(scored, find, lambda task: sizes(task, split))

            return cls(
                terms=[Term(metric=metric_of(o), weight=o.weight) for o in objectives],
                aggregate=aggregate,
                constraints=[
                    Constraint(metric=metric_of(c), at_least=c.at_least, of=c.of)
                    for c in constraints
                ],
            )

        objective = on("search")
        if any(o.weight_by_size for o in objectives) or any(c.weight_by_size for c in constraints):
            objective._on = {"validation": on("validation"), "test": on("test")}
        return objective

    def on(self, split: Split) -> Objective:
        """The objective on the items of a split: tasks of some groups weigh by their items there.

        So a group's score is what lm-eval computes on the same items.
        """
        return self._on.get(split, self)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of all objectives and constraints, in the order of the job."""
        named = [*(t.metric for t in self.terms), *(c.metric for c in self.constraints)]
        return tuple(dict.fromkeys(named))

    def with_groups(self, means: Means) -> Means:
        """Means of tasks, and before them those of the groups."""
        groups: dict[str, dict[str, float]] = {}
        for metric in self.metrics:
            if metric.parts:
                groups.setdefault(metric.task, {})[metric.key] = metric.mean(means)
        return {**groups, **means} if groups else means

    @property
    def leaves(self) -> tuple[Metric, ...]:
        """The metrics of single tasks that the objectives are made of."""
        return leaves_of(term.metric for term in self.terms)

    def fold(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means by single tasks (..., leaves) to scores (..., terms)."""
        return fold(values, self.leaves, [term.metric for term in self.terms])

    def combine(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (..., terms) to combined scores (...), higher is better."""
        chosen = self._weights > 0.0
        weights = self._weights[chosen] / self._weights[chosen].sum()
        values = scores[..., chosen]
        if self.aggregate == "min":
            return np.asarray(values.min(axis=-1))
        if self.aggregate == "geometric":
            positive = np.maximum(values, 0.0)
            with np.errstate(divide="ignore"):
                return np.asarray(np.exp((np.log(positive) * weights).sum(axis=-1)))
        return np.asarray((values * self._signs[chosen] * weights).sum(axis=-1))

    @property
    def axes(self) -> tuple[Metric, ...]:
        """The metrics of positive weight: the axes of a front, in the order of the job."""
        return tuple(term.metric for term in self.terms if term.weight > 0.0)

    def losses_of(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (..., terms) to losses on the axes (..., axes), lower is better."""
        chosen = self._weights > 0.0
        return np.asarray(scores[..., chosen] * -self._signs[chosen])

    def values(self, means: Means) -> tuple[float, ...]:
        """The score on each axis, with its metric's sign. Raises TaskError if one is missing."""
        return tuple(metric.mean(means) for metric in self.axes)

    @property
    def directions(self) -> tuple[Literal["maximize", "minimize"], ...]:
        """Whether each axis is maximised or minimised, in a record's words."""
        return tuple("maximize" if m.higher_is_better else "minimize" for m in self.axes)

    def score(self, means: Means) -> float:
        """The combined score, higher is better. Raises TaskError where a metric is missing."""
        return float(self.combine(np.array([term.metric.mean(means) for term in self.terms])))

    def score_of(self, outcome: Evaluation) -> float | None:
        """The combined score of an outcome, None where the candidate failed."""
        return None if isinstance(outcome, Failed) else self.score(means_of(outcome.tasks))

    def thresholds(self, *, base: Means | None, sources: Sequence[Means]) -> tuple[float, ...]:
        """The value that each constraint requires, from the scores of the base and the sources.

        These scores must be on items of the same kind of split as the candidates'. Raises TaskError
        if a constraint compares with scores that are not given.
        """
        required = []
        for constraint in self.constraints:
            compared: Sequence[Means] = {
                None: (),
                "base": () if base is None else (base,),
                "best_source": sources,
            }[constraint.of]
            if constraint.of is not None and not compared:
                raise TaskError(
                    f"constraints: {constraint.metric}: no score of {constraint.of} to compare "
                    "with; score it first"
                )
            reached = [constraint.metric.mean(means) for means in compared]
            required.append(constraint.at_least * max(reached, default=1.0))
        return tuple(required)

    def shortfalls(self, means: Means, thresholds: Sequence[float]) -> tuple[float, ...]:
        """How far each constraint is missed, relative to its threshold; 0 where it is kept."""
        return tuple(
            constraint.shortfall(constraint.metric.mean(means), threshold)
            for constraint, threshold in zip(self.constraints, thresholds, strict=True)
        )

    def fitness(
        self, generation: Sequence[Means], *, thresholds: Sequence[float] = ()
    ) -> NDArray[np.float64]:
        """Fitness (n,) of a generation's candidates, in order: lower is better, all finite.

        -score, plus the summed relative shortfalls x `penalty_unit`. So a score one tenth below a
        threshold costs at least as much as any difference of scores in the generation. A candidate
        that failed (empty means), or has a score that is not finite, gets a value worse than every
        finite one by at least 1.
        """
        scores = np.full(len(generation), np.nan)
        short = np.zeros(len(generation))
        for index, means in enumerate(generation):
            if means:
                scores[index] = self.score(means)
                short[index] = sum(self.shortfalls(means, thresholds))
        finite = np.isfinite(scores) & np.isfinite(short)
        if not finite.any():
            return np.zeros(len(generation))
        fitness = -scores + penalty_unit(scores[finite]) * short
        spread = float(np.ptp(fitness[finite]))
        fitness[~finite] = float(fitness[finite].max()) + max(1.0, spread)
        return fitness

    def losses(self, candidates: Sequence[Means]) -> NDArray[np.float64]:
        """Losses (n, axes): lower is better, all finite.

        A loss is a score, its sign flipped where higher is better. A candidate that failed, or has
        a score that is not finite, is worse than every finite one on every axis, by at least 1.
        """
        scores = np.full((len(candidates), len(self.terms)), np.nan)
        for index, means in enumerate(candidates):
            if means:
                scores[index] = [term.metric.mean(means) for term in self.terms]
        losses = self.losses_of(scores)
        finite = np.isfinite(losses).all(axis=1)
        if not finite.any():
            return np.zeros_like(losses)
        spread = np.ptp(losses[finite], axis=0)
        losses[~finite] = losses[finite].max(axis=0) + np.maximum(1.0, spread)
        return losses

    def violations(
        self, candidates: Sequence[Means], *, thresholds: Sequence[float] = ()
    ) -> NDArray[np.float64]:
        """How far each candidate breaks the constraints, (n,): 0 is kept, all finite.

        The sum of the relative shortfalls. A candidate that failed, or has a score that is not
        finite, breaks them more than every finite one, by at least 1.
        """
        short = np.full(len(candidates), np.nan)
        for index, means in enumerate(candidates):
            if means and np.isfinite(self.values(means)).all():
                short[index] = sum(self.shortfalls(means, thresholds))
        finite = np.isfinite(short)
        short[~finite] = 1.0 + max(short[finite], default=0.0)
        return short


def means_of(scores: Scores) -> dict[str, dict[str, float]]:
    """Mean of every metric over the items, task by task."""
    return {
        task: {metric: items.mean(metric) for metric in items.metrics}
        for task, items in scores.items()
    }


def _unsized(task: str, split: Split) -> int:
    raise AssertionError(f"{task}: a group whose tasks are weighted by size needs their sizes")

"""Objectives combine as documented, constraints cost, and fitness is always finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import TaskError
from evomerge.evaluate.candidate import Failed, Scored, TaskItems
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.objective import Constraint, Objective, Term, means_of
from evomerge.job import Aggregate, ConstraintSpec, ObjectiveSpec


def term(task: str, weight: float = 1.0, *, higher: bool = True) -> Term:
    return Term(metric=Metric(task=task, key="acc", higher_is_better=higher), weight=weight)


def means(**scores: float) -> dict[str, dict[str, float]]:
    return {task: {"acc": score} for task, score in scores.items()}


def objective(aggregate: Aggregate, *weights: float, **options: bool) -> Objective:
    return Objective(
        terms=[term(name, w, **options) for name, w in zip("abc", weights, strict=False)],
        aggregate=aggregate,
    )


def test_mean_is_weighted_and_counts_lower_is_better_as_negative() -> None:
    assert objective("mean", 1, 3).score(means(a=0.4, b=0.8)) == pytest.approx(0.7)
    mixed = Objective(terms=[term("a", 1), term("b", 1, higher=False)], aggregate="mean")
    assert mixed.score(means(a=0.4, b=3.0)) == pytest.approx((0.4 - 3.0) / 2)


def test_geometric_is_weighted_and_zero_as_soon_as_one_score_is() -> None:
    combined = objective("geometric", 1, 3)
    assert combined.score(means(a=0.4, b=0.8)) == pytest.approx(0.4**0.25 * 0.8**0.75)
    assert combined.score(means(a=0.0, b=0.8)) == 0.0
    assert combined.score(means(a=-0.5, b=0.8)) == 0.0
    assert objective("geometric", 0, 1).score(means(a=0.0, b=0.8)) == pytest.approx(0.8)


def test_min_is_the_lowest_score_and_weights_only_select() -> None:
    combined = objective("min", 0, 1, 5)
    assert combined.score(means(a=0.1, b=0.6, c=0.5)) == 0.5
    assert combined.score(means(a=0.1, b=0.3, c=0.5)) == 0.3


def test_combining_is_the_same_for_many_rows_at_once() -> None:
    rows = np.random.default_rng(0).random((4, 5, 3))
    for aggregate in ("mean", "geometric", "min"):
        combined = objective(aggregate, 1, 2, 0)
        single = [[combined.combine(row) for row in block] for block in rows]
        np.testing.assert_allclose(combined.combine(rows), single, rtol=1e-12)  # summation order


@pytest.mark.parametrize("aggregate", ["geometric", "min"])
def test_lower_is_better_is_refused_where_it_cannot_be_combined(aggregate: Aggregate) -> None:
    with pytest.raises(TaskError, match=rf"a/acc is better when lower.*{aggregate}.*mean"):
        objective(aggregate, 1, higher=False)


def test_a_missing_metric_is_named() -> None:
    with pytest.raises(TaskError, match=r"^b/acc: not every item has a value"):
        objective("mean", 1, 1).score(means(a=0.4))


def test_a_job_is_read_with_the_suites_own_names() -> None:
    def find(task: str, name: str) -> Metric:
        return Metric(task=task, key=f"{name},strict", higher_is_better=True)

    built = Objective.build(
        [ObjectiveSpec(task="a", metric="acc", weight=2.0)],
        aggregate="mean",
        constraints=[ConstraintSpec(task="b", metric="acc", at_least=0.5)],
        find=find,
    )
    assert built.score({"a": {"acc,strict": 0.25}}) == 0.25
    assert built.thresholds(base=None, sources=()) == (0.5,)


def constrained(at_least: float, of: str | None = None) -> Objective:
    return Objective(
        terms=[term("a")],
        aggregate="mean",
        constraints=[
            Constraint(
                metric=Metric(task="b", key="acc", higher_is_better=True),
                at_least=at_least,
                of=of,  # type: ignore[arg-type]
            )
        ],
    )


def test_thresholds_are_relative_to_the_base_or_the_best_source() -> None:
    scores = {"base": means(b=0.5), "sources": [means(b=0.6), means(b=0.8)]}
    assert constrained(0.9).thresholds(**scores) == (0.9,)
    assert constrained(0.9, "base").thresholds(**scores) == (pytest.approx(0.45),)
    assert constrained(0.9, "best_source").thresholds(**scores) == (pytest.approx(0.72),)
    with pytest.raises(TaskError, match="b/acc: no score of base to compare with"):
        constrained(0.9, "base").thresholds(base=None, sources=[])


def test_a_constraint_on_a_lower_is_better_metric_is_refused() -> None:
    with pytest.raises(TaskError, match="constraints: a/acc is better when lower"):
        Objective(
            terms=[term("a")],
            aggregate="mean",
            constraints=[
                Constraint(
                    metric=Metric(task="a", key="acc", higher_is_better=False),
                    at_least=0.5,
                    of=None,
                )
            ],
        )


def test_a_kept_constraint_costs_nothing_and_a_missed_one_in_proportion() -> None:
    combined = constrained(0.8)
    generation = [means(a=0.5, b=b) for b in (0.9, 0.8, 0.76, 0.72)]
    fitness = combined.fitness(generation, thresholds=(0.8,))
    assert fitness[0] == fitness[1] == -0.5
    assert combined.shortfalls(generation[3], (0.8,)) == (pytest.approx(0.1),)
    assert (fitness[3] + 0.5) == pytest.approx(2 * (fitness[2] + 0.5))


@given(
    scores=st.lists(st.floats(-50, 50), min_size=2, max_size=8),
    missed=st.floats(0.1001, 1.0),
)
def test_a_tenth_below_a_threshold_is_more_than_any_score_repays(
    scores: list[float], missed: float
) -> None:
    generation = [means(a=score, b=1.0) for score in scores]
    generation.append(means(a=max(scores), b=1.0 - missed))
    fitness = constrained(1.0).fitness(generation, thresholds=(1.0,))
    assert fitness[-1] > fitness[:-1].max()


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.sampled_from((math.nan, math.inf, -math.inf)),
            st.floats(-1e9, 1e9),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_fitness_is_finite_and_failures_are_worse_than_every_real_score(
    scores: list[float | None],
) -> None:
    generation = [{} if score is None else means(a=score) for score in scores]
    fitness = objective("mean", 1).fitness(generation)
    assert np.isfinite(fitness).all()
    real = np.array([bool(m) and math.isfinite(m["a"]["acc"]) for m in generation])
    if real.any() and not real.all():
        assert fitness[~real].min() > fitness[real].max()


def test_better_scores_have_lower_fitness() -> None:
    fitness = objective("mean", 1).fitness([means(a=0.2), means(a=0.9), {}, means(a=0.5)])
    assert np.argsort(fitness).tolist() == [1, 3, 0, 2]


def test_outcomes_are_scored_from_their_items() -> None:
    items = TaskItems(ids=(0, 4, 7), metrics={"acc": (1.0, 0.0, 1.0)})
    assert means_of({"a": items}) == {"a": {"acc": 2 / 3}}
    assert objective("mean", 1).score_of(Scored(tasks={"a": items})) == 2 / 3
    assert objective("mean", 1).score_of(Failed(reason="logits are not finite")) is None

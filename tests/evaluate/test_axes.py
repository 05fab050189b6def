"""Objectives kept apart: losses on axes, and how far constraints are broken."""

import numpy as np
import pytest

from evomerge.errors import TaskError
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.objective import Constraint, Objective, Term

ACC = Metric(task="sums", key="acc", higher_is_better=True)
NATS = Metric(task="text", key="nats", higher_is_better=False)
KEPT = Metric(task="kept", key="acc", higher_is_better=True)


def made(*constraints: Constraint) -> Objective:
    """Two axes with another term of no weight between them."""
    return Objective(
        terms=[
            Term(metric=ACC, weight=0.5),
            Term(metric=KEPT, weight=0.0),
            Term(metric=NATS, weight=2.0),
        ],
        aggregate="mean",
        constraints=constraints,
    )


def means(acc: float, nats: float, kept: float = 1.0):
    return {"sums": {"acc": acc}, "text": {"nats": nats}, "kept": {"acc": kept}}


def test_axes_are_the_metrics_of_positive_weight_whatever_the_weight():
    objective = made()
    assert objective.axes == (ACC, NATS)
    assert objective.directions == ("maximize", "minimize")
    assert objective.values(means(0.75, 3.0)) == (0.75, 3.0)


def test_losses_flip_what_is_better_when_higher():
    losses = made().losses([means(0.75, 3.0), means(0.5, 2.0)])
    assert losses.tolist() == [[-0.75, 3.0], [-0.5, 2.0]]


def test_a_failed_candidate_is_finite_and_worse_on_every_axis():
    objective = made()
    generation = [means(0.75, 30.0), {}, means(float("nan"), 2.0), means(0.25, 2.0)]
    losses = objective.losses(generation)
    assert np.isfinite(losses).all()
    real = losses[[0, 3]]
    for failed in losses[[1, 2]]:
        assert (failed >= real.max(axis=0) + 1.0).all()
    violations = objective.violations(generation)
    assert violations[[0, 3]].tolist() == [0.0, 0.0]
    assert (violations[[1, 2]] >= 1.0).all()


def test_a_generation_of_failures_is_told_as_equals_that_break_constraints():
    assert made().losses([{}, {}]).tolist() == [[0.0, 0.0]] * 2
    assert made().violations([{}, {}]).tolist() == [1.0, 1.0]


def test_violation_is_the_summed_relative_shortfall_and_failing_is_worse():
    objective = made(
        Constraint(metric=KEPT, at_least=0.8, of=None),
        Constraint(metric=ACC, at_least=0.5, of=None),
    )
    generation = [means(0.5, 1.0, kept=0.8), means(0.25, 1.0, kept=0.4), {}]
    found = objective.violations(generation, thresholds=(0.8, 0.5))
    np.testing.assert_allclose(found, [0.0, 0.5 + 0.5, 2.0])


def test_a_missing_score_is_named():
    with pytest.raises(TaskError, match="text/nats"):
        made().losses([{"sums": {"acc": 1.0}, "kept": {"acc": 1.0}}])

"""Anchors: exact where clusters are, better than a plain draw where they nearly are."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.search.sampling.anchors import choose_anchors, cluster_items
from tests.search.sampling.worlds import clustered_world, logistic_world

FROZEN_ITEMS = (2, 37, 43, 44, 47, 51, 65, 80, 86, 88, 94, 98)
NAN = float("nan")


def test_estimates_are_exact_where_clusters_are() -> None:
    """For a new model too, as long as it keeps to the clusters."""
    sizes = (50, 30, 12, 5, 3)
    responses, cluster = clustered_world(0, models=12, sizes=sizes)
    anchors = choose_anchors(responses, 5, seed=1)
    assert sorted(cluster[anchors.items].tolist()) == [0, 1, 2, 3, 4]
    newcomers = np.random.default_rng(3).random((6, 5))[:, cluster]
    estimates = anchors.estimate(newcomers[:, anchors.items])
    np.testing.assert_allclose(estimates, newcomers.mean(axis=1), atol=1e-12)


def test_anchors_to_spare_go_to_the_largest_clusters() -> None:
    responses, cluster = clustered_world(0, models=12, sizes=(60, 30, 10))
    anchors = choose_anchors(responses, 9, seed=1)
    taken = np.bincount(cluster[anchors.items])
    assert taken.sum() == 9
    assert taken[0] > taken[1] > taken[2] >= 1
    newcomer = np.array([0.2, 0.7, 0.4])[cluster]
    assert float(anchors.estimate(newcomer[anchors.items])) == pytest.approx(newcomer.mean())


def test_items_all_agree_on_cost_a_few_audits() -> None:
    responses, _ = clustered_world(0, models=12, sizes=(60, 30, 10))
    agreed = np.repeat([[1.0] * 500 + [0.0] * 200], 12, axis=0)
    together = np.concatenate([responses, agreed], axis=1)
    anchors = choose_anchors(together, 20, seed=0)
    audits = anchors.items[anchors.items >= 100]
    assert len(audits) == 2  # a tenth of twenty, one of each group
    assert ((audits < 600).sum(), (audits >= 600).sum()) == (1, 1)
    estimates = anchors.estimate(together[:, anchors.items])
    np.testing.assert_allclose(estimates, together.mean(axis=1), atol=0.005)


def test_an_audit_is_believed_as_far_as_models_left_out_differ() -> None:
    """Half the models flip half of what the others agree on, so a new one may."""
    generator = np.random.default_rng(0)
    responses = np.ones((10, 600))
    for row in range(5):  # items of its own, so that the others agree on them
        own = np.arange(row * 100, row * 100 + 100)
        responses[row, own] = 0.0
    agreed = choose_anchors(responses, 30, seed=0)
    weights = agreed.weights[agreed.items >= 500]
    assert len(weights) > 0
    assert weights.min() > 0.0
    belief = weights.sum() / (100 / 600)
    assert 0.5 < belief < 1.0
    # What is not believed of a clean audit is the usual shift: half of the models half, so 1/4.
    clean = float(agreed.estimate(np.ones(30)))
    assert clean == pytest.approx(1.0 - 100 / 600 * (1.0 - belief) * 0.25)
    calm = np.ones((10, 600))
    assert choose_anchors(calm, 30, seed=0).weights.max() == 0.0
    assert choose_anchors(calm, 30, seed=0).offset == 1.0
    flipping = (generator.random(600) > 0.2).astype(float)
    assert float(agreed.estimate(flipping[agreed.items])) < 1.0


def test_what_models_left_out_changed_is_expected_of_a_new_one() -> None:
    """Every model flips 20 items that all others agree on, so a new one is taken to flip 20."""
    responses = np.ones((10, 600))
    for row in range(10):
        responses[row, row * 20 : row * 20 + 20] = 0.0
    anchors = choose_anchors(responses, 30, seed=0)
    new = np.ones(600)
    new[400:420] = 0.0
    audited = anchors.items[anchors.items >= 200]
    assert new[audited].all()  # the audit does not see it
    # 20 of 420 agreed items are expected to flip, where the 200 others say one in ten.
    expected = (400 * (1 - 20 / 420) + 200 * 1.0) / 600
    assert float(anchors.estimate(new[anchors.items])) == pytest.approx(expected, abs=0.01)


def test_errors_are_below_a_plain_draws() -> None:
    """40 of 600 items, 25 models to choose by, 200 new ones."""
    outcomes, *_ = logistic_world(4, models=225, items=600)
    known, new = outcomes[:25], outcomes[25:]
    anchors = choose_anchors(known, 40, seed=0)
    errors = anchors.estimate(new[:, anchors.items]) - new.mean(axis=1)
    plain = np.sqrt((new.var(axis=1) / 40 * (1 - 40 / 600)).mean())
    assert np.sqrt((errors**2).mean()) < 0.95 * plain


def test_anchors_are_those_of_earlier_versions() -> None:
    """Frozen: a resumed search must keep its anchors."""
    outcomes, *_ = logistic_world(1, models=9, items=120)
    anchors = choose_anchors(outcomes, 12, seed=5)
    assert tuple(anchors.items.tolist()) == FROZEN_ITEMS
    again = choose_anchors(outcomes, 12, seed=5)
    np.testing.assert_array_equal(anchors.items, again.items)
    np.testing.assert_array_equal(anchors.weights, again.weights)
    other = choose_anchors(outcomes, 12, seed=6)
    assert tuple(other.items.tolist()) != FROZEN_ITEMS


def test_partly_scored_models_do_not_change_the_clusters() -> None:
    outcomes, *_ = logistic_world(1, models=9, items=120)
    partial = np.full((20, 120), NAN)
    partial[:, :30] = 1.0
    empty = np.full((1, 120), NAN)
    anchors = choose_anchors(np.concatenate([outcomes, partial, empty]), 12, seed=5)
    np.testing.assert_array_equal(anchors.items, choose_anchors(outcomes, 12, seed=5).items)


def test_models_scored_on_parts_alone_still_give_anchors() -> None:
    outcomes, *_ = logistic_world(1, models=30, items=120)
    outcomes[np.random.default_rng(0).random(outcomes.shape) < 0.7] = NAN
    anchors = choose_anchors(outcomes, 12, seed=5)
    assert len(anchors.items) == 12
    assert np.isfinite(anchors.weights).all()


def test_items_nobody_was_scored_on_are_no_anchors_and_taken_for_the_others_like() -> None:
    outcomes, *_ = logistic_world(1, models=12, items=200)
    half = outcomes.copy()
    half[:, ::2] = NAN
    anchors = choose_anchors(half, 20, seed=0)
    assert (anchors.items % 2 == 1).all()
    assert anchors.weights.max() < 0.2
    found = anchors.estimate(outcomes[:, anchors.items])
    # The mean of the items asked, so within the error of 100 of 200 items, four times.
    assert (np.abs(found - outcomes.mean(axis=1)) < 4 * 0.5 / np.sqrt(200)).all()
    more = choose_anchors(half, 150, seed=0)
    assert len(more.items) == 150
    assert set(range(1, 200, 2)) < set(more.items.tolist())
    np.testing.assert_array_equal(more.weights, np.full(150, 1 / 150))


def test_every_item_as_an_anchor_is_the_mean_itself() -> None:
    outcomes, *_ = logistic_world(2, models=8, items=40)
    anchors = choose_anchors(outcomes, 40, seed=0)
    np.testing.assert_array_equal(anchors.items, np.arange(40))
    np.testing.assert_allclose(
        anchors.estimate(outcomes[:, anchors.items]), outcomes.mean(axis=1), atol=0.03
    )


@pytest.mark.parametrize("count", [0, 61])
def test_an_impossible_count_is_refused(count: int) -> None:
    outcomes, *_ = logistic_world(2, models=8, items=60)
    with pytest.raises(ValueError, match=f"count: {count} anchors of 60 items; give 1 to 60"):
        choose_anchors(outcomes, count, seed=0)


def test_one_model_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="1 models with outcomes; give at least 2"):
        choose_anchors(np.ones((1, 60)), 5, seed=0)


def test_clusters_are_no_worse_than_scipys() -> None:
    """Spread within clusters, against the best of as many runs of scipy's k-means."""
    from scipy.cluster.vq import kmeans2

    outcomes, *_ = logistic_world(3, models=15, items=300)
    _, distances = cluster_items(outcomes.T, 20, np.random.PCG64(0))
    spreads = []
    for seed in range(3):
        centres, labels = kmeans2(outcomes.T, 20, iter=25, minit="++", seed=seed)
        spreads.append(((outcomes.T - centres[labels]) ** 2).sum())
    # Runs of either differ by a few hundredths.
    assert distances.sum() < 1.05 * min(spreads)

"""Draws: which items, how they are weighted, and what they are allowed to depend on."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.evaluate.candidate import TaskItems
from evomerge.job import Draws
from evomerge.search.sampling.draws import ItemDraws, Sample

POOLS = {"first": tuple(range(100, 160)), "second": tuple(range(7))}
METRICS = {"first": ("acc",), "second": ("acc",)}


def item_draws(kind: Draws, seed: int = 3) -> ItemDraws:
    return ItemDraws(POOLS, METRICS, kind=kind, seed=seed)


def answers(outcome: dict[int, float]) -> dict[str, TaskItems]:
    """Results of one candidate on items of the first task."""
    ids = tuple(sorted(outcome))
    return {"first": TaskItems(ids=ids, metrics={"acc": tuple(outcome[i] for i in ids)})}


def ids_of(sample: Sample, task: str = "first") -> tuple[int, ...]:
    return tuple(sorted(sample.tasks[task].items.tolist()))


def test_items_are_shared_out_evenly_and_a_small_task_gives_all() -> None:
    sample = item_draws("fresh").draw(1, 25)
    assert len(sample.tasks["first"].items) == 13
    assert len(sample.tasks["second"].items) == 7
    assert set(ids_of(sample)) <= set(POOLS["first"])
    assert len(set(ids_of(sample))) == 13


@pytest.mark.parametrize("kind", ["fresh", "informative"])
def test_every_generation_has_items_of_its_own_and_the_same_again(kind: Draws) -> None:
    first, second = item_draws(kind), item_draws(kind)
    drawn = [ids_of(first.draw(generation, 20)) for generation in (1, 2, 3)]
    assert len(set(drawn)) == 3
    assert [ids_of(second.draw(generation, 20)) for generation in (1, 2, 3)] == drawn
    assert ids_of(item_draws(kind, seed=4).draw(1, 20)) != drawn[0]


@pytest.mark.parametrize("kind", ["fixed", "anchors"])
def test_one_subset_serves_all_generations(kind: Draws) -> None:
    draws = item_draws(kind)
    draws.learn(
        [answers({i: float(i % (model + 2) == 0) for i in POOLS["first"]}) for model in range(6)]
    )
    first = draws.draw(1, 20)
    draws.learn([answers(dict.fromkeys(POOLS["first"], 1.0))])
    assert ids_of(draws.draw(2, 20)) == ids_of(first)


def test_all_is_every_item() -> None:
    sample = item_draws("all").draw(5, 1)
    assert ids_of(sample) == POOLS["first"]
    assert ids_of(sample, "second") == POOLS["second"]


def test_items_on_which_candidates_disagree_come_more_often() -> None:
    draws = item_draws("informative")
    disputed = set(POOLS["first"][:12])
    for model in range(8):
        draws.learn([answers({i: float(i in disputed and model % 2) for i in POOLS["first"]})])
    hits = [len(disputed & set(ids_of(draws.draw(generation, 24)))) for generation in range(1, 41)]
    # 12 of 60 items, of which a plain draw of 12 takes 2.4.
    assert np.mean(hits) > 4.5


def test_estimates_of_informative_draws_are_right_on_the_average() -> None:
    """The mean of 2,000 estimates is within four standard errors: one run in 16,000 fails."""
    draws = item_draws("informative")
    rng = np.random.default_rng(0)
    for _ in range(6):
        draws.learn([answers({i: float(rng.random() < (i % 10) / 10) for i in POOLS["first"]})])
    truth = {i: float(rng.random() < (i % 7) / 7) for i in POOLS["first"]}
    estimates = []
    for generation in range(1, 2001):
        sample = draws.draw(generation, 24)
        scored = answers({i: truth[i] for i in ids_of(sample)})
        estimates.append(sample.means(scored)["first"]["acc"])
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - np.mean(list(truth.values()))) < 4 * error


def test_a_beginning_of_a_sample_is_a_sample() -> None:
    """Blocks share no item, make the whole, and the first alone gives an unbiased estimate too."""
    draws = item_draws("informative")
    rng = np.random.default_rng(1)
    for _ in range(6):
        draws.learn([answers({i: float(rng.random() < (i % 10) / 10) for i in POOLS["first"]})])
    truth = {i: float(rng.random() < 0.5) for i in POOLS["first"]}
    estimates = []
    for generation in range(1, 2001):
        sample = draws.draw(generation, 24)
        blocks = [sample.block(number, of=3)["first"] for number in range(3)]
        assert tuple(sorted(i for block in blocks for i in block)) == ids_of(sample)
        scored = answers({i: truth[i] for i in blocks[0]})
        estimates.append(sample.means(scored)["first"]["acc"])
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - np.mean(list(truth.values()))) < 4 * error


def test_plain_draws_give_the_plain_mean_to_the_bit() -> None:
    sample = item_draws("fresh").draw(1, 22)
    ids = ids_of(sample)
    scored = answers({i: float(i % 3 == 0) for i in ids})
    assert sample.means(scored)["first"]["acc"] == scored["first"].mean("acc")


def test_results_on_other_items_than_the_samples_are_an_error_of_ours() -> None:
    sample = item_draws("fresh").draw(1, 22)
    outside = next(i for i in POOLS["first"] if i not in ids_of(sample))
    with pytest.raises(AssertionError):
        sample.means(answers({outside: 1.0}))

"""Searches over switches, through every optimiser: where they begin, what they find and keep."""

import numpy as np
import pytest

from evomerge.job import OptimizerSpec
from evomerge.optimize import make_optimizer
from evomerge.optimize.registry import BUILT_IN
from evomerge.optimize.start import FLIPS, place

OWN = sorted(row.name for row in BUILT_IN.values() if row.serves("single"))

DISTRIBUTIONS = ("cat_cma_es", "cma_es", "cma_es_threshold", "lra_cma_es")
"""Optimisers with a mean."""


def begin(algorithm: str, *, start, continuous: int = 0, seed: int = 0):
    """An optimiser of switches with a start and of more genes that are none, at 1/2."""
    return make_optimizer(
        OptimizerSpec(algorithm=algorithm, seed=seed),
        start=np.concatenate([start, np.full(continuous, 0.5)]),
        binary=np.arange(start.size + continuous) < start.size,
    )


def spreads(optimizer):
    """Standard deviation of each gene, (n,); of a switch of CatCMA by its probability."""
    strategy = optimizer._strategy
    if not hasattr(strategy, "_sigma"):
        return np.array(strategy.stds)
    normal = strategy._sigma * np.sqrt(np.diag(strategy._C))
    if not hasattr(strategy, "_q"):
        return normal
    return np.concatenate([np.sqrt(strategy._q.prod(axis=1)), normal])


@pytest.mark.parametrize("algorithm", OWN)
@pytest.mark.parametrize("count", [10, 34, 190])
def test_first_candidates_are_a_few_flips_from_the_start_however_many_switches(algorithm, count):
    """On average `FLIPS`; at least 76 candidates are drawn, so 5 standard errors are below 1."""
    start = (np.arange(count) % 3 == 0).astype(float)
    flips = []
    for seed in range(4 if count == 190 else 8):
        genomes = begin(algorithm, start=start, seed=seed).ask()
        flips += ((genomes > 0.5) != (start > 0.5)).sum(axis=1).tolist()
    error = np.sqrt(FLIPS * (1 - FLIPS / count) / len(flips))
    assert abs(np.mean(flips) - FLIPS) < 5 * error


@pytest.mark.parametrize(("sigma", "position"), [(0.5, 0.0), (1 / 6, 0.11549)])
def test_a_start_is_placed_where_a_step_flips_that_often_but_inside_the_box(sigma, position):
    # Normal quantile of 1 - 2/190: 2.30704.
    placed = place(np.array([0.0, 1.0] * 95), np.ones(190, dtype=bool), sigma)
    np.testing.assert_allclose(placed, [position, 1 - position] * 95, atol=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "count", "generations"),
    [
        ("cat_cma_es", 20, 60),
        ("cma_es", 20, 40),
        ("cma_es_threshold", 20, 80),
        ("lra_cma_es", 20, 50),
        ("tpe", 8, 10),
    ],
)
def test_a_pattern_of_switches_is_found(algorithm, count, generations):
    """The number of wrong switches is told. Of 100 seeds (30 for TPE) all found it in time."""
    for seed in range(3):
        wanted = np.random.default_rng(seed).random(count) < 0.5
        optimizer = begin(algorithm, start=np.zeros(count), seed=seed)
        for _ in range(generations):
            wrong = ((optimizer.ask() > 0.5) != wanted).sum(axis=1)
            optimizer.tell(wrong.astype(float))
            found = wrong.min() == 0
            if optimizer.mean is not None:
                found = np.array_equal(optimizer.mean > 0.5, wanted)
            if found:
                break
        assert found


@pytest.mark.parametrize("algorithm", DISTRIBUTIONS)
@pytest.mark.parametrize("count", [8, 70])
def test_a_gene_that_never_has_an_effect_stays_put_and_does_not_collapse(algorithm, count):
    """100 generations of random fitness; one switch and one other gene are never active.

    Their means stay to rounding. Their spreads are as those of genes of their kind that are always
    active: of these the largest and the least differ by less than a factor of 3 themselves.
    """
    if algorithm == "lra_cma_es":
        count = 8  # its full covariance is slow to update
    optimizer = begin(algorithm, start=np.arange(count) % 2.0, continuous=count, seed=3)
    before = optimizer.mean
    active = np.ones((optimizer.population, 2 * count), dtype=bool)
    active[:, [0, count]] = False
    fitness = np.random.default_rng(0)
    for _ in range(100):
        optimizer.ask()
        optimizer.tell(fitness.random(optimizer.population), active)
    np.testing.assert_allclose(optimizer.mean[[0, count]], before[[0, count]], atol=1e-12)
    others = np.arange(2 * count) % count > 0
    assert np.abs(optimizer.mean - before)[others].max() > 0.1
    idle, live = spreads(optimizer)[count], spreads(optimizer)[count + 1 :]
    assert live.min() / 3 < idle < live.max() * 3


@pytest.mark.parametrize("algorithm", DISTRIBUTIONS)
def test_only_the_genomes_where_a_gene_has_an_effect_move_its_mean(algorithm):
    """One switch and one other gene; optimisers with a mean learn it from the better half."""
    genes, ranks = [1, 6], np.array([5, 0, 7, 2, 9, 4, 1, 8, 3, 6])
    means, asked = {}, {}
    for idle in ("none", "worse half", "better half", "better half but the best"):
        optimizer = begin(algorithm, start=np.arange(5) % 2.0, continuous=5, seed=2)
        assert optimizer.population == ranks.size
        before = optimizer.mean
        optimizer.ask()
        active = np.ones((10, 10), dtype=bool)
        first, last = {"none": (0, 0), "worse half": (5, 10), "better half": (0, 5)}.get(
            idle, (1, 5)
        )
        active[np.ix_((ranks >= first) & (ranks < last), genes)] = False
        optimizer.tell(ranks.astype(float), active)
        means[idle], asked[idle] = optimizer.mean - before, optimizer.ask()
    assert asked["none"].tobytes() == asked["worse half"].tobytes()
    np.testing.assert_allclose(means["better half"][genes], 0.0, atol=1e-12)
    for other in ("none", "better half but the best"):
        assert (np.abs(means[other][genes]) > 1e-3).all()
    rest = np.setdiff1d(np.arange(10), genes)
    np.testing.assert_allclose(means["better half"][rest], means["none"][rest], atol=1e-12)


@pytest.mark.parametrize("algorithm", DISTRIBUTIONS)
def test_a_gene_learns_from_the_genomes_where_it_has_an_effect(algorithm):
    """A gene that matters only where a switch is on, and that ought to rise there."""
    rises = []
    for seed in range(5):
        optimizer = begin(algorithm, start=np.zeros(6), continuous=2, seed=seed)
        for _ in range(30):
            genomes = optimizer.ask()
            on = genomes[:, 0] > 0.5
            active = np.ones(genomes.shape, dtype=bool)
            active[:, 6] = on
            optimizer.tell(-1.0 * on * (1 + genomes[:, 6]), active)
        rises.append(optimizer.mean[6] - 0.5)
    assert np.median(rises) > 0.2

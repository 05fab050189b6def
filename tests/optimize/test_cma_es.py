import warnings
from statistics import NormalDist

import numpy as np
import pytest

from evomerge.job import OptimizerSpec
from evomerge.optimize import make_optimizer
from evomerge.optimize.cma_es import CmaEs

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Could not import matplotlib")
    import cma


def sphere(genomes):
    return np.sum((genomes - np.linspace(0.1, 0.9, genomes.shape[1])) ** 2, axis=1)


@pytest.mark.parametrize("n", [2, 26, 120, 320])
def test_it_is_pycma_with_the_options_that_the_design_names(n):
    """Genome by genome, to the last bit, for 30 generations; diagonal past 100 genes."""
    generator = np.random.default_rng(11)
    published = cma.CMAEvolutionStrategy(
        np.full(n, 0.5),
        1 / 6,
        {
            "bounds": [0, 1],
            "popsize": (4 + int(3 * np.log(n))) * (2 if n >= 16 else 1),
            "CMA_cmean": 0.5 if n >= 16 else 1.0,
            "CMA_on": 0.5 if n >= 16 else 1.0,
            "CMA_diagonal": n > 100,
            "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
            "seed": np.nan,
            "randn": lambda *shape: generator.standard_normal(shape),
            "verbose": -10,
        },
    )
    spec = OptimizerSpec(algorithm="cma_es", seed=11)
    optimizer = make_optimizer(spec, start=np.full(n, 0.5))
    for _ in range(30 if n < 300 else 8):
        solutions = published.ask()
        genomes = optimizer.ask()
        assert genomes.tobytes() == np.array(solutions).tobytes()
        fitness = np.round(sphere(genomes) * 8) / 8  # with ties
        published.tell(solutions, fitness.tolist())
        optimizer.tell(fitness)
        assert optimizer.mean.tobytes() == np.array(published.result.xfavorite).tobytes()


@pytest.mark.parametrize("algorithm", ["cma_es", "cma_es_threshold"])
@pytest.mark.parametrize(("n", "switches"), [(8, 8), (30, 12), (120, 60)])
def test_switches_are_pycmas_integer_variables_or_plain_coordinates(algorithm, n, switches):
    """To the last bit; pycma's centring draws from the global generator, ours leaves it alone."""
    binary = np.arange(n) < switches
    start = np.where(binary, 0.0, 0.5)
    # Where a step of 1/6 flips two switches on average.
    placed = np.where(binary, 0.5 - NormalDist().inv_cdf(1 - 2 / switches) / 6, 0.5)
    generator = np.random.default_rng(11)
    options = {
        "bounds": [0, 1],
        "popsize": 4 + int(3 * np.log(n)),
        "CMA_cmean": 0.5 if n >= 16 else 1.0,
        "CMA_on": 0.5 if n >= 16 else 1.0,
        "CMA_diagonal": n > 100,
        "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
        "seed": np.nan,
        "randn": lambda *shape: generator.standard_normal(shape),
        "verbose": -10,
    }
    if algorithm == "cma_es":
        options["integer_variables"] = list(range(switches))
    published = cma.CMAEvolutionStrategy(placed, 1 / 6, options)
    spec = OptimizerSpec(algorithm=algorithm, seed=11)
    optimizer = make_optimizer(spec, start=start, binary=binary)
    for _ in range(30):
        solutions = published.ask()
        state = np.random.get_state()
        genomes = optimizer.ask()
        assert genomes.tobytes() == np.array(solutions).tobytes()
        if algorithm == "cma_es":
            assert np.isin(genomes[:, binary], (0.0, 1.0)).all()
        fitness = np.round(sphere(genomes) * 8) / 8  # with ties
        optimizer.tell(fitness)
        assert np.array_equal(state[1], np.random.get_state()[1])
        published.tell(solutions, fitness.tolist())
        assert optimizer.mean.tobytes() == np.array(published.result.xfavorite).tobytes()


def test_learning_rates_of_a_diagonal_covariance_are_damped_too():
    """pycma keeps separate rates there; half of them is half the change of the variances."""
    rates = []
    for on in (1.0, 0.5):
        options = {"CMA_diagonal": True, "CMA_on": on, "verbose": -10, "popsize": 18}
        parameters = cma.CMAEvolutionStrategy(np.full(120, 0.5), 0.2, options).sp
        rates.append((parameters.c1_sep, parameters.cmu_sep))
    assert rates[1] == pytest.approx([rates[0][0] / 2, rates[0][1] / 2], rel=1e-6)


@pytest.mark.parametrize("n", [2, 120, 320])
def test_replay_survives_a_disturbed_global_generator_in_every_dimension(n):
    asked = []
    for disturbed in (False, True):
        optimizer = make_optimizer(OptimizerSpec(seed=3), start=np.linspace(0.0, 1.0, n))
        genomes = []
        for generation in range(4):  # a draw that is not the optimizer's own shows in the second
            if disturbed:
                np.random.seed(generation)
            genomes.append(optimizer.ask())
            optimizer.tell(sphere(genomes[-1]))
        asked.append(np.array(genomes).tobytes())
    assert asked[0] == asked[1]


def test_a_start_inside_is_the_first_mean():
    start = np.array([0.05, 0.3, 0.95])
    mean = make_optimizer(OptimizerSpec(), start=start).mean
    np.testing.assert_allclose(mean, start, atol=1e-12)


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_a_start_on_a_bound_is_moved_inside_and_leaves_it(bound):
    optimizer = make_optimizer(OptimizerSpec(seed=4), start=np.full(12, bound))
    np.testing.assert_allclose(optimizer.mean, abs(bound - 0.05), atol=1e-12)
    target = abs(bound - 0.4)
    for _ in range(60):
        genomes = optimizer.ask()
        optimizer.tell(np.mean((genomes - target) ** 2, axis=1))
    assert np.abs(optimizer.mean - target).max() < 0.2


def test_an_optimum_on_a_bound_is_reached():
    optimizer = make_optimizer(OptimizerSpec(seed=4), start=np.full(6, 0.5))
    for _ in range(60):
        genomes = optimizer.ask()
        optimizer.tell(genomes.sum(axis=1))
    assert optimizer.mean.max() < 0.02


def test_it_stops_when_all_candidates_are_one_and_says_so():
    optimizer = CmaEs(
        start=np.full(2, 0.5), sigma=1e-11, population=6, seed=0, binary=np.zeros(2, bool)
    )
    for _ in range(40):
        if optimizer.stop:
            break
        optimizer.tell(sphere(optimizer.ask()))
    assert "step size" in optimizer.stop


def test_the_warning_filters_are_left_as_they_were():
    before = list(warnings.filters)
    make_optimizer(OptimizerSpec(), start=np.full(3, 0.5))
    assert warnings.filters == before

import cmaes
import numpy as np
import pytest

from evomerge.job import OptimizerSpec
from evomerge.optimize import make_optimizer

SPEC = OptimizerSpec(algorithm="cat_cma_es", seed=9)


def sphere(genomes):
    return np.sum((genomes - np.linspace(0.1, 0.9, genomes.shape[1])) ** 2, axis=1)


@pytest.mark.parametrize(("continuous", "switches"), [(5, 0), (0, 12), (5, 12)])
def test_it_is_cmaes_with_a_half_step_of_the_mean(continuous, switches):
    """Genome by genome, to the last bit, for 30 generations with ties and failures."""
    n = continuous + switches
    binary = np.arange(n) >= continuous
    begin = np.where(np.arange(n) % 2, 1.0, 0.25)
    chances = np.where(begin[binary] > 0.5, 1 - 2 / 12, 2 / 12)
    published = cmaes.CatCMAwM(
        x_space=[[0.0, 1.0]] * continuous or None,
        c_space=[2] * switches or None,
        population_size=4 + int(3 * np.log(n)),
        mean=begin[~binary],
        sigma=1 / 6,
        cov=np.eye(continuous),
        cat_param=np.stack([1 - chances, chances], axis=1),
        seed=9,
    )
    published._cm = 0.5
    optimizer = make_optimizer(SPEC, start=begin, binary=binary)
    for generation in range(30):
        solutions = [published.ask() for _ in range(published.population_size)]
        genomes = optimizer.ask()
        if continuous:
            assert np.array_equal(genomes[:, ~binary], [solution.x for solution in solutions])
        if switches:
            drawn = [solution.c.argmax(axis=1) for solution in solutions]
            assert np.array_equal(genomes[:, binary], drawn)
        fitness = np.round(sphere(genomes) * 8) / 8
        fitness[generation % len(fitness)] = 1e6
        published.tell(list(zip(solutions, fitness.tolist(), strict=True)))
        optimizer.tell(fitness)
        if continuous:
            assert np.array_equal(optimizer.mean[~binary], np.clip(published._mean, 0.0, 1.0))
        if switches:
            assert np.array_equal(optimizer.mean[binary], published._q[:, 1])


def test_the_mean_of_a_switch_is_its_chance_to_be_on():
    start = np.array([0.0, 1.0] * 10)
    optimizer = make_optimizer(SPEC, start=start, binary=np.ones(20, dtype=bool))
    np.testing.assert_allclose(optimizer.mean, [0.1, 0.9] * 10)


def test_a_switch_never_settles():
    optimizer = make_optimizer(SPEC, start=np.zeros(6), binary=np.ones(6, dtype=bool))
    for _ in range(80):
        optimizer.tell(optimizer.ask().sum(axis=1))
    margin = 1 - 0.73 ** (1 / 6)
    np.testing.assert_allclose(optimizer.mean, margin, atol=0.02)
    assert optimizer.stop is None


@pytest.mark.filterwarnings("error")
def test_ties_in_every_generation_so_far_are_nothing_to_warn_of():
    optimizer = make_optimizer(SPEC, start=np.full(8, 0.9), binary=np.arange(8) < 4)
    for _ in range(5):
        optimizer.tell(np.full(len(optimizer.ask()), 0.5))
    assert np.isfinite(optimizer.mean).all()


def test_it_stops_when_all_candidates_are_one_and_says_so():
    spec = OptimizerSpec(algorithm="cat_cma_es", sigma=1e-8)
    optimizer = make_optimizer(spec, start=np.array([0.1, 0.9]))
    for _ in range(200):
        if optimizer.stop:
            break
        optimizer.tell(sphere(optimizer.ask()))
    assert "step size" in optimizer.stop

import cmaes
import numpy as np

from evomerge.job import OptimizerSpec
from evomerge.optimize import make_optimizer
from evomerge.optimize.lra_cma_es import RESAMPLINGS, LraCmaEs


def sphere(genomes):
    return np.sum((genomes - 0.3) ** 2, axis=1)


def test_it_is_cmaes_with_learning_rate_adaptation():
    n = 12
    published = cmaes.CMA(
        mean=np.full(n, 0.5),
        sigma=1 / 6,
        bounds=np.tile([0.0, 1.0], (n, 1)),
        n_max_resampling=RESAMPLINGS,
        seed=9,
        lr_adapt=True,
    )
    optimizer = make_optimizer(OptimizerSpec(algorithm="lra_cma_es", seed=9), start=np.full(n, 0.5))
    assert optimizer.population == published.population_size
    for _ in range(30):
        solutions = [published.ask() for _ in range(published.population_size)]
        genomes = optimizer.ask()
        assert genomes.tobytes() == np.array(solutions).tobytes()
        fitness = np.round(sphere(genomes) * 8) / 8
        published.tell(list(zip(solutions, fitness.tolist(), strict=True)))
        optimizer.tell(fitness)
        assert optimizer.mean.tobytes() == published.mean.tobytes()


def test_switches_are_plain_coordinates_placed_a_few_flips_from_the_start():
    binary = np.arange(12) < 4
    optimizer = make_optimizer(
        OptimizerSpec(algorithm="lra_cma_es"), start=np.where(binary, 1.0, 0.3), binary=binary
    )
    # Two of four are flipped on average where the mean is at the threshold.
    np.testing.assert_allclose(optimizer.mean, np.where(binary, 0.5, 0.3))


def test_it_stops_when_all_candidates_are_one_and_says_so():
    optimizer = LraCmaEs(
        start=np.full(2, 0.3), sigma=1e-8, population=8, seed=0, binary=np.zeros(2, bool)
    )
    for _ in range(500):
        if optimizer.stop:
            break
        optimizer.tell(sphere(optimizer.ask()))
    assert "step size" in optimizer.stop
    np.testing.assert_allclose(optimizer.mean, 0.3, atol=1e-7)

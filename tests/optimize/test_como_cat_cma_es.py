import cmaes
import numpy as np
import pytest

from evomerge.job import OptimizerSpec
from evomerge.optimize import make_pareto_optimizer
from evomerge.optimize.como_cat_cma_es import KERNELS


def losses_of(genomes):
    return np.stack([np.sum((genomes - o) ** 2, axis=1) for o in (0.2, 0.8)], axis=1)


@pytest.mark.parametrize(("continuous", "switches"), [(5, 0), (0, 6), (4, 5)])
def test_it_is_cmaes_between_reference_points_of_the_feasible(continuous, switches):
    """Genome by genome for 25 generations, the first KERNELS starts as its distributions' means."""
    n, population = continuous + switches, 8
    binary = np.arange(n) >= continuous
    starts = np.random.default_rng(0).random((KERNELS, n))
    starts[:, binary] = starts[:, binary] > 0.5
    flip = min(0.5, 2.0 / max(switches, 1))
    kernels = []
    for start in starts:
        on = np.where(start[binary] > 0.5, 1 - flip, flip)
        kernel = cmaes.CatCMAwM(
            x_space=[[0.0, 1.0]] * continuous or None,
            c_space=[2] * switches or None,
            population_size=population - 1,
            mean=start[~binary],
            sigma=1 / 6,
            cov=np.eye(continuous),
            cat_param=np.stack([1 - on, on], axis=1),
        )
        kernel._cm = 0.5
        kernels.append(kernel)
    published = cmaes.COMOCatCMAwM(
        x_space=[[0.0, 1.0]] * continuous or None,
        c_space=[2] * switches or None,
        kernels=kernels,
        seed=3,
    )
    optimizer = make_pareto_optimizer(
        OptimizerSpec(algorithm="como_cat_cma_es", seed=3, population=population),
        starts=starts,
        objectives=2,
        binary=binary,
    )
    for _ in range(25):
        solutions = list(published.ask_iter(population))
        genomes = optimizer.ask()
        for genome, solution in zip(genomes, solutions, strict=False):
            if continuous:
                assert np.array_equal(genome[~binary], np.clip(solution.x, 0.0, 1.0))
            if switches:
                assert np.array_equal(genome[binary], solution.c.argmax(axis=1))
        told = losses_of(genomes)
        # cmaes' own moving reference sees what it is told, ours all of the generation.
        published._ideal_point = _least(published._ideal_point, told.min(axis=0))
        published._nadir_point = _most(published._nadir_point, told.max(axis=0))
        published.tell(list(zip(solutions, told[: len(solutions)].tolist(), strict=True)))
        optimizer.tell(told, np.zeros(population))


def _least(before, now):
    return now if before is None else np.minimum(before, now)


def _most(before, now):
    return now if before is None else np.maximum(before, now)


def test_after_the_opening_every_generation_is_one_population_and_one_mean():
    optimizer = make_pareto_optimizer(
        OptimizerSpec(algorithm="como_cat_cma_es", population=9),
        starts=np.full((1, 4), 0.5),
        objectives=2,
    )
    sizes = []
    for _ in range(8):
        genomes = optimizer.ask()
        sizes.append(len(optimizer._asked))
        optimizer.tell(losses_of(genomes), np.zeros(9))
    # Eight of a population and three means do not fit two generations evenly.
    assert sizes == [9, KERNELS - 1 + 8 - 9, *[9] * 6]

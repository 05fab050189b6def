"""What every optimiser for one score must do. Whoever tests one makes a class of this one.

The module of that class gives the fixtures `algorithm`, the name of an optimiser, and `learner`,
the name of one that learns.
"""

import numpy as np
import pytest

from evomerge.job import OptimizerSpec
from evomerge.optimize import Optimizer, default_population, make_optimizer

FAILED = 1e6
"""Fitness of a candidate that could not be scored: finite, worse than every real one."""


def make(algorithm: str, n: int = 6, start: float = 0.5, switches: int = 0, **spec) -> Optimizer:
    """The last `switches` of n genes are switches."""
    return make_optimizer(
        OptimizerSpec(algorithm=algorithm, **spec),
        start=np.full(n, start),
        binary=np.arange(n) >= n - switches,
    )


def noisy_ties(genomes, generation: int):
    """Accuracy-like fitness: noisy, in steps of a sixteenth, the first candidate failed."""
    noise = np.random.default_rng(generation).normal(0.0, 0.05, len(genomes))
    fitness = np.round((np.mean((genomes - 0.3) ** 2, axis=1) + noise) * 16) / 16
    fitness[generation % len(genomes)] = FAILED
    return fitness


def some_active(genomes, generation: int):
    """A gene in three is without effect; the last one always."""
    active = np.random.default_rng(generation).random(genomes.shape) < 2 / 3
    active[:, -1] = False
    return active


def run(optimizer: Optimizer, generations: int, disturb: bool = False, conditional: bool = False):
    asked = []
    for generation in range(generations):
        if disturb:
            np.random.seed(generation)
            np.random.random(7)
        genomes = optimizer.ask()
        asked.append(genomes)
        active = some_active(genomes, generation) if conditional else None
        optimizer.tell(noisy_ties(genomes, generation), active)
    return np.array(asked)


class Contract:
    """The tests; a class of its own that is called Test..., and is empty, runs them."""

    @pytest.mark.parametrize(
        ("n", "switches"), [(1, 0), (2, 0), (13, 0), (13, 6), (1, 1), (13, 13)]
    )
    @pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
    def test_genomes_have_the_shape_asked_for_and_lie_in_the_box(
        self, algorithm, n, switches, start
    ):
        optimizer = make(algorithm, n, start, switches)
        assert optimizer.population == default_population(n)
        asked = []
        for generation in range(8):
            genomes = optimizer.ask()
            asked.append(genomes)
            assert genomes.shape == (optimizer.population, n)
            assert genomes.dtype == np.float64
            assert ((genomes >= 0.0) & (genomes <= 1.0)).all()
            optimizer.tell(noisy_ties(genomes, generation))
            if optimizer.mean is not None:
                assert optimizer.mean.shape == (n,)
                assert ((optimizer.mean >= 0.0) & (optimizer.mean <= 1.0)).all()
        assert all(
            len(np.unique(gene > 0.5 if switch else gene)) > 1
            for gene, switch in zip(
                np.concatenate(asked).T, np.arange(n) >= n - switches, strict=True
            )
        )

    @pytest.mark.parametrize("population", [4, 5, 24])
    @pytest.mark.parametrize("switches", [0, 4])
    def test_a_population_may_be_given(self, algorithm, population, switches):
        optimizer = make(algorithm, population=population, switches=switches)
        assert optimizer.population == population
        assert run(optimizer, 4).shape == (4, population, 6)

    @pytest.mark.parametrize("switches", [0, 3, 6])
    @pytest.mark.parametrize("conditional", [False, True])
    def test_replaying_recorded_fitness_asks_for_identical_genomes(
        self, algorithm, switches, conditional
    ):
        generations = 30 if algorithm != "tpe" else 8  # its cost grows with all that was told

        def asked(seed: int, disturb: bool = False) -> bytes:
            optimizer = make(algorithm, switches=switches, seed=seed)
            return run(optimizer, generations, disturb, conditional).tobytes()

        first = asked(5)
        assert first == asked(5, disturb=True)
        assert first != asked(6)

    @pytest.mark.parametrize("switches", [0, 3, 6])
    def test_the_global_generator_is_left_alone(self, algorithm, switches):
        np.random.seed(0)
        before = np.random.get_state()
        run(make(algorithm, switches=switches), 20 if algorithm != "tpe" else 4, conditional=True)
        after = np.random.get_state()
        assert before[1].tobytes() == after[1].tobytes()
        assert before[2:] == after[2:]

    @pytest.mark.parametrize("switches", [0, 3])
    def test_genomes_handed_out_are_the_callers_own(self, algorithm, switches):
        one, other = make(algorithm, switches=switches), make(algorithm, switches=switches)
        for generation in range(4):
            genomes = one.ask()
            fitness = genomes.sum(axis=1)
            active = some_active(genomes, generation)
            genomes[:] = 0.0
            if one.mean is not None:
                one.mean[:] = 0.0
            one.tell(fitness, active)
            assert np.array_equal(fitness, other.ask().sum(axis=1))
            other.tell(fitness, active)

    @pytest.mark.parametrize("switches", [0, 1, 3])
    def test_equal_fitness_does_not_end_a_search(self, algorithm, switches):
        optimizer = make(algorithm, 3, switches=switches)
        for _ in range(60 if algorithm != "tpe" else 10):
            optimizer.tell(np.full(len(optimizer.ask()), 0.5))
            assert optimizer.stop is None

    def test_a_failed_candidate_is_avoided(self, learner):
        """Half of the box fails; whoever learns proposes it less and less."""
        optimizer = make(learner, 2, seed=1)
        late = []
        for generation in range(20):
            genomes = optimizer.ask()
            failed = genomes[:, 0] > 0.5
            optimizer.tell(np.where(failed, FAILED, (genomes[:, 0] - 0.4) ** 2))
            if generation >= 12:
                late.append(failed.mean())
        assert np.mean(late) < 0.4

    @pytest.mark.parametrize("n", [1, 8])
    def test_the_mean_of_a_sphere_is_found(self, learner, n):
        target = np.linspace(0.2, 0.7, n)
        optimizer = make(learner, n, start=0.5 if n > 1 else 0.9, seed=2)
        before = np.mean((np.full(n, 0.5 if n > 1 else 0.9) - target) ** 2)
        for _ in range(30 if learner != "tpe" else 12):
            genomes = optimizer.ask()
            fitness = np.mean((genomes - target) ** 2, axis=1)
            optimizer.tell(fitness)
        assert fitness.min() < before / 2
        if optimizer.mean is not None:
            assert np.mean((optimizer.mean - target) ** 2) < before / 4

    def test_fitness_that_is_not_finite_is_a_mistake_of_the_caller(self, algorithm):
        optimizer = make(algorithm)
        fitness = np.zeros(len(optimizer.ask()))
        fitness[0] = np.nan
        with pytest.raises(AssertionError, match="not finite"):
            optimizer.tell(fitness)

    @pytest.mark.parametrize("active", [np.ones((3, 6), bool), np.ones((9, 6), int)])
    def test_a_mask_of_another_shape_or_type_is_a_mistake_of_the_caller(self, algorithm, active):
        optimizer = make(algorithm)
        assert optimizer.population == 9
        optimizer.ask()
        with pytest.raises(AssertionError, match=r"is not|not bool"):
            optimizer.tell(np.zeros(9), active)

    @pytest.mark.parametrize("switches", [0, 3])
    def test_genes_that_all_had_an_effect_need_not_be_told(self, algorithm, switches):
        one, other = make(algorithm, switches=switches), make(algorithm, switches=switches)
        for generation in range(6):
            genomes = one.ask()
            assert genomes.tobytes() == other.ask().tobytes()
            fitness = noisy_ties(genomes, generation)
            one.tell(fitness)
            other.tell(fitness, np.ones(genomes.shape, dtype=bool))

    @pytest.mark.parametrize("switches", [0, 3, 6])
    def test_nothing_is_printed_or_written(self, algorithm, switches, tmp_path, monkeypatch, capfd):
        monkeypatch.chdir(tmp_path)
        run(make(algorithm, switches=switches), 3, conditional=True)
        assert list(tmp_path.iterdir()) == []
        assert capfd.readouterr() == ("", "")

"""Every optimiser for several objectives, through the same contract."""

import numpy as np
import pytest

from evomerge.evaluate.inference.fronts import hypervolume
from evomerge.job import OptimizerSpec
from evomerge.optimize import ParetoOptimizer, choose_algorithm, make_pareto_optimizer
from evomerge.optimize.como_cat_cma_es import ComoCatCmaEs
from evomerge.optimize.nsga2 import Nsga2
from evomerge.optimize.registry import BUILT_IN, MOST_CONTINUOUS

OWN = sorted(row.name for row in BUILT_IN.values() if row.serves("pareto"))
LEARNERS = [name for name in OWN if name != "random"]


@pytest.fixture(params=OWN)
def algorithm(request) -> str:
    return request.param


@pytest.fixture(params=LEARNERS)
def learner(request) -> str:
    return request.param


def make(algorithm: str, n: int = 6, switches: int = 0, starts=None, **spec) -> ParetoOptimizer:
    """The last `switches` of n genes are switches; two starts at the ends of a line."""
    places = np.array([np.full(n, 0.2), np.full(n, 0.9)]) if starts is None else starts
    return make_pareto_optimizer(
        OptimizerSpec(algorithm=algorithm, **spec),
        starts=places,
        objectives=2,
        binary=np.arange(n) >= n - switches,
    )


def noisy_ties(genomes, generation: int):
    """Two accuracies at odds, noisy, in steps of a sixteenth; some break a constraint."""
    draw = np.random.default_rng(generation)
    noise = draw.normal(0.0, 0.05, (len(genomes), 2))
    away = np.stack([np.mean((genomes - o) ** 2, axis=1) for o in (0.2, 0.8)], axis=1)
    losses = np.round((away + noise) * 16) / 16
    violation = np.maximum(0.0, draw.normal(-0.5, 1.0, len(genomes)))
    losses[generation % len(genomes)] = losses.max(axis=0) + 1.0
    violation[generation % len(genomes)] = violation.max() + 1.0
    return losses, violation


def run(optimizer: ParetoOptimizer, generations: int, disturb: bool = False):
    asked = []
    for generation in range(generations):
        if disturb:
            np.random.seed(generation)
            np.random.random(7)
        genomes = optimizer.ask()
        asked.append(genomes)
        optimizer.tell(*noisy_ties(genomes, generation))
    return np.array(asked)


@pytest.mark.parametrize(("n", "switches"), [(1, 0), (2, 0), (13, 0), (13, 6), (1, 1), (13, 13)])
def test_genomes_have_the_shape_asked_for_and_lie_in_the_box(algorithm, n, switches):
    optimizer = make(algorithm, n, switches)
    asked = run(optimizer, 8)
    assert asked.shape == (8, optimizer.population, n)
    assert asked.dtype == np.float64
    assert ((asked >= 0.0) & (asked <= 1.0)).all()
    binary = asked[..., n - switches :]
    assert np.isin(binary, (0.0, 1.0)).all()
    assert (np.ptp(asked.reshape(-1, n), axis=0) > 0.0).all()
    assert optimizer.stop is None


@pytest.mark.parametrize("population", [5, 24])
@pytest.mark.parametrize("switches", [0, 4])
def test_a_population_may_be_given(algorithm, population, switches):
    optimizer = make(algorithm, population=population, switches=switches)
    assert run(optimizer, 4).shape == (4, population, 6)


@pytest.mark.parametrize("switches", [0, 3, 6])
def test_replaying_recorded_losses_asks_for_identical_genomes(algorithm, switches):
    def asked(seed: int, disturb: bool = False) -> bytes:
        return run(make(algorithm, switches=switches, seed=seed), 12, disturb).tobytes()

    first = asked(5)
    assert first == asked(5, disturb=True)
    assert first != asked(6)


@pytest.mark.parametrize("switches", [0, 3])
def test_the_global_generator_is_left_alone(algorithm, switches):
    np.random.seed(0)
    before = np.random.get_state()
    run(make(algorithm, switches=switches), 8)
    after = np.random.get_state()
    assert before[1].tobytes() == after[1].tobytes()
    assert before[2:] == after[2:]


@pytest.mark.parametrize("switches", [0, 3])
def test_genomes_handed_out_are_the_callers_own(algorithm, switches):
    one, other = make(algorithm, switches=switches), make(algorithm, switches=switches)
    for generation in range(5):
        genomes, told = one.ask(), noisy_ties(other.ask(), generation)
        genomes[:] = 0.0
        one.tell(*(part.copy() for part in told))
        other.tell(*told)
    assert np.array_equal(one.ask(), other.ask())


@pytest.mark.parametrize("switches", [0, 3])
def test_equal_losses_do_not_end_a_search(algorithm, switches):
    optimizer = make(algorithm, 3, switches, population=6)
    for _ in range(20):
        genomes = optimizer.ask()
        optimizer.tell(np.full((6, 2), 0.5), np.zeros(6))
        assert np.isfinite(genomes).all()
        assert optimizer.stop is None


@pytest.mark.filterwarnings("error")
def test_everything_failing_is_survived(algorithm):
    optimizer = make(algorithm, population=6)
    for _ in range(6):
        optimizer.ask()
        optimizer.tell(np.zeros((6, 2)), np.ones(6))
    assert np.isfinite(optimizer.ask()).all()


def test_what_breaks_constraints_is_avoided(learner):
    """Half of the box is infeasible though better; whoever learns proposes it less and less."""
    starts = np.full((1, 2), 0.5)
    optimizer = make(learner, 2, starts=starts, seed=1, population=8)
    late = []
    for generation in range(25):
        genomes = optimizer.ask()
        broken = np.maximum(0.0, genomes[:, 0] - 0.5)
        optimizer.tell(np.stack([-genomes[:, 0], genomes[:, 1]], axis=1), broken)
        if generation >= 15:
            late.append((broken > 0.0).mean())
    assert np.mean(late) < 0.4


def test_a_front_is_found_and_better_than_at_random(learner):
    """Two optima at odds: the hypervolume of all that was asked, averaged over seeds."""
    target = np.linspace(0.2, 0.7, 6)

    def found(algorithm: str, seed: int) -> float:
        optimizer = make(algorithm, starts=np.full((1, 6), 0.5), seed=seed, population=10)
        losses = []
        for _ in range(25):
            genomes = optimizer.ask()
            told = np.stack([np.mean((genomes - t) ** 2, axis=1) for t in (target, 1 - target)], 1)
            optimizer.tell(told, np.zeros(10))
            losses.append(told)
        return float(hypervolume(np.concatenate(losses), np.full(2, 0.2)))

    learnt = np.mean([found(learner, seed) for seed in range(4)])
    assert learnt > np.mean([found("random", seed) for seed in range(4)]) + 0.001


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_losses_that_are_not_finite_are_a_mistake_of_the_caller(algorithm, wrong):
    optimizer = make(algorithm, population=6)
    optimizer.ask()
    losses = np.zeros((6, 2))
    losses[0, 1] = wrong
    with pytest.raises(AssertionError, match="not finite"):
        optimizer.tell(losses, np.zeros(6))


def test_losses_of_another_shape_are_a_mistake_of_the_caller(algorithm):
    optimizer = make(algorithm, population=6)
    optimizer.ask()
    with pytest.raises(AssertionError, match="is not"):
        optimizer.tell(np.zeros((6, 3)), np.zeros(6))


@pytest.mark.parametrize("switches", [0, 3])
def test_nothing_is_printed_or_written(algorithm, switches, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    run(make(algorithm, switches=switches), 3)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("objectives", "continuous", "population", "chosen"),
    [
        (2, 8, "auto", "como_cat_cma_es"),
        (3, 8, "auto", "nsga2"),
        (2, 8, 4, "nsga2"),
        (2, MOST_CONTINUOUS + 1, "auto", "nsga2"),
    ],
)
def test_auto_is_what_measured_best(objectives, continuous, population, chosen):
    spec = OptimizerSpec(population=population)
    binary = np.zeros(continuous, dtype=bool)
    assert choose_algorithm(spec, binary, objectives=objectives) == chosen
    if continuous < MOST_CONTINUOUS:
        optimizer = make_pareto_optimizer(
            spec, starts=np.full((1, continuous), 0.5), objectives=objectives
        )
        kind = {"como_cat_cma_es": ComoCatCmaEs, "nsga2": Nsga2}[chosen]
        assert isinstance(optimizer, kind)

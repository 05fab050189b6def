import warnings

import numpy as np
import optuna

from evomerge.job import OptimizerSpec
from evomerge.optimize import make_pareto_optimizer
from evomerge.optimize.start import first_population


def test_it_is_optunas_sampler_asked_in_batches_after_the_opening():
    """Genome by genome, with a switch and constraints; the first generation is given."""
    starts = np.array([[0.3, 0.6, 1.0], [0.8, 0.1, 0.0]])
    binary = np.array([False, False, True])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.NSGAIISampler(
            population_size=8,
            crossover=optuna.samplers.nsgaii.BLXAlphaCrossover(),
            mutation=optuna.samplers.nsgaii.PolynomialMutation(),
            seed=4,
        )
    study = optuna.create_study(directions=["minimize"] * 3, sampler=sampler)
    genes: dict[str, optuna.distributions.BaseDistribution] = {
        "gene0": optuna.distributions.FloatDistribution(0.0, 1.0),
        "gene1": optuna.distributions.FloatDistribution(0.0, 1.0),
        "gene2": optuna.distributions.CategoricalDistribution([0.0, 1.0]),
    }
    opening = first_population(
        starts, population=8, sigma=1 / 6, binary=binary, generator=np.random.default_rng(4)
    )
    for genome in opening.tolist():
        study.enqueue_trial(dict(zip(genes, genome, strict=True)))
    optimizer = make_pareto_optimizer(
        OptimizerSpec(algorithm="nsga2", seed=4, population=8),
        starts=starts,
        objectives=3,
        binary=binary,
    )
    for _ in range(6):
        trials = [study.ask(genes) for _ in range(8)]
        genomes = optimizer.ask()
        assert genomes.tolist() == [list(trial.params.values()) for trial in trials]
        losses = np.abs(genomes - 0.4)
        violation = np.maximum(0.0, genomes[:, 0] - 0.7)
        for trial, row, broken in zip(trials, losses, violation, strict=True):
            trial.set_constraint("any name", broken)
            study.tell(trial, row.tolist())
        optimizer.tell(losses, violation)


def test_the_opening_lies_on_the_lines_between_the_starts():
    starts = np.array([[0.1] * 40, [0.9] * 40])
    genomes = first_population(
        starts,
        population=60,
        sigma=0.1,
        binary=np.zeros(40, dtype=bool),
        generator=np.random.default_rng(0),
    )
    assert np.array_equal(genomes[:2], starts)
    # A genome's genes share a place on the line, up to noise of a quarter of sigma each.
    assert (genomes[2:].std(axis=1) < 0.04).all()
    places = genomes[2:].mean(axis=1)
    assert places.min() < 0.2 and places.max() > 0.8

import logging

import numpy as np
import optuna

from evomerge.job import OptimizerSpec
from evomerge.optimize import make_optimizer


def make(**spec):
    return make_optimizer(OptimizerSpec(algorithm="tpe", **spec), start=np.full(3, 0.5))


def test_it_is_optunas_sampler_asked_in_batches():
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=8, constant_liar=True))
    genes = {f"gene{i}": optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(3)}
    optimizer = make(seed=8)
    for _ in range(6):
        trials = [study.ask(genes) for _ in range(optimizer.population)]
        genomes = optimizer.ask()
        assert genomes.tolist() == [list(trial.params.values()) for trial in trials]
        fitness = np.sum((genomes - 0.2) ** 2, axis=1)
        for trial, value in zip(trials, fitness, strict=True):
            study.tell(trial, value)
        optimizer.tell(fitness)


def test_switches_are_categories_and_genes_without_effect_are_what_a_trial_lacks():
    """Genome by genome against a study that is told just that; the first generation is given."""
    sampler = optuna.samplers.TPESampler(seed=8, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    genes = {
        "gene0": optuna.distributions.CategoricalDistribution([0.0, 1.0]),
        "gene1": optuna.distributions.FloatDistribution(0.0, 1.0),
    }
    optimizer = make_optimizer(
        OptimizerSpec(algorithm="tpe", seed=8, population=12),
        start=np.array([0.0, 0.5]),
        binary=np.array([True, False]),
    )
    lacking = 0
    for generation in range(5):
        genomes = optimizer.ask()
        if generation == 0:
            for genome in genomes.tolist():
                study.enqueue_trial(dict(zip(genes, genome, strict=True)))
        trials = [study.ask(genes) for _ in range(12)]
        assert genomes.tolist() == [list(trial.params.values()) for trial in trials]
        active = np.stack([np.ones(12, dtype=bool), genomes[:, 0] > 0.5], axis=1)
        fitness = np.abs(genomes[:, 1] - 0.2) + 1.0 - genomes[:, 0]
        optimizer.tell(fitness, active)
        for trial, on, value in zip(trials, active[:, 1], fitness.tolist(), strict=True):
            if on:
                study.tell(trial, value)
                continue
            lacking += 1
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            study.add_trial(
                optuna.trial.create_trial(
                    params={"gene0": trial.params["gene0"]},
                    distributions={"gene0": genes["gene0"]},
                    value=value,
                )
            )
    assert lacking > 0


def test_its_study_is_not_announced_and_the_verbosity_is_kept():
    said = []
    handler = logging.Handler()
    handler.emit = said.append
    logger = logging.getLogger("optuna")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    logger.addHandler(handler)
    try:
        make()
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        logger.removeHandler(handler)
        optuna.logging.set_verbosity(before)
    assert said == []

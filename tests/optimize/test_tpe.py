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

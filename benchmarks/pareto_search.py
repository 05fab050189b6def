#!/usr/bin/env python3
"""Which optimiser finds fronts: made-up merges with several objectives, equal items for all.

Every objective has an optimum of its own in the unit box, and a parent near it; candidates are
scored by greedy outcomes on fresh items, as a search does, and what is delivered is picked by
those scores, as a selection does. Printed is the hypervolume of the delivered merges' true scores,
as a share of that of merges on the lines between the optima.

    python benchmarks/pareto_search.py [--seeds 20]
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate.inference.fronts import front_order, hypervolume
from evomerge.job import OptimizerSpec
from evomerge.optimize import ParetoOptimizer, default_population, make_pareto_optimizer
from evomerge.optimize.start import first_population

Array = NDArray[np.float64]

SEARCHES = ((6, 0, 2), (16, 0, 2), (40, 0, 2), (40, 30, 2), (6, 0, 3), (40, 0, 3))
"""Genes, how many of them are switches, and objectives."""

PARETO_ALGORITHMS: dict[str, str] = {
    "random": "random",
    "nsga2": "nsga2",
    "como_cat_cma_es": "como_cat_cma_es",
}

BUDGETS = (100, 200, 400)
ITEMS = 64
"""Items of each objective that a candidate is scored on."""

DELIVERED = 12


class Landscape:
    """A made-up search: the true score of each objective falls from 0.9 with the distance to its
    optimum, along axes of different weight; parents lie near the optima, the soup between them.

    An item is solved where its difficulty, and what it thinks of this merge in particular, is below
    the score. A switch that is set other than its optimum costs as much as half the box.
    """

    def __init__(self, genes: int, switches: int, objectives: int, seed: int) -> None:
        draw = np.random.default_rng((genes, switches, objectives, seed))
        self.binary = np.arange(genes) >= genes - switches
        self.optima = draw.uniform(0.15, 0.85, (objectives, genes))
        flips = draw.random((objectives, switches)) < 0.2
        self.optima[:, self.binary] = np.where(flips, 1.0, 0.0)
        self.weights = draw.dirichlet(np.full(genes, 2.0), objectives)
        near = self.optima + draw.normal(0.0, 0.12, self.optima.shape)
        parents = np.clip(near, 0.0, 1.0)
        parents[:, self.binary] = 0.0
        soup = parents.mean(axis=0)
        self.starts = np.concatenate([soup[None], parents])

    def scores(self, genomes: Array) -> Array:
        """True scores, (n, objectives)."""
        away = genomes[:, None, :] - self.optima
        away[:, :, self.binary] *= 0.5
        distance = (self.weights * away**2).sum(axis=-1)
        return np.asarray(0.9 * np.exp(-8.0 * distance))

    def losses(self, genomes: Array, draw: np.random.Generator) -> Array:
        """Minus the scores on a fresh draw of items, shared by these genomes."""
        true = self.scores(genomes)
        difficulty = draw.random((1, true.shape[1], ITEMS))
        own = draw.random((len(genomes), true.shape[1], ITEMS))
        mixed = np.where(own < 0.3, draw.random(own.shape), difficulty)
        return np.asarray(-(mixed < true[:, :, None]).mean(axis=-1))


def run(optimizer: ParetoOptimizer, landscape: Landscape, seed: int) -> dict[int, float]:
    """Budget -> hypervolume of what would be delivered then."""
    draw = np.random.default_rng((seed, 1))
    genomes: list[Array] = []
    losses: list[Array] = []
    found: dict[int, float] = {}
    for budget in BUDGETS:
        while (len(genomes) + 1) * optimizer.population <= budget:
            asked = optimizer.ask()
            told = landscape.losses(asked, draw)
            optimizer.tell(told, np.zeros(len(asked)))
            genomes.append(asked)
            losses.append(told)
        picked = front_order(np.concatenate(losses))[:DELIVERED]
        found[budget] = volume(landscape.scores(np.concatenate(genomes)[picked]))
    return found


def volume(scores: Array) -> float:
    """Hypervolume above scores of zero."""
    return float(hypervolume(-scores, np.zeros(scores.shape[1])))


def best_known(landscape: Landscape, objectives: int) -> float:
    """Hypervolume of merges on the lines between the optima, which can hardly be bettered."""
    draw = np.random.default_rng(0)
    shares = draw.dirichlet(np.ones(objectives), 200)
    genomes = shares @ landscape.optima
    genomes[:, landscape.binary] = genomes[:, landscape.binary] > 0.5
    return volume(landscape.scores(np.concatenate([genomes, landscape.optima])))


class Lines:
    """Rewarded soups (Rame et al. 2023): random places on the lines between the starts, no more."""

    stop: None = None

    def __init__(self, landscape: Landscape, seed: int) -> None:
        self.population = default_population(landscape.binary.size)
        self._landscape = landscape
        self._generator = np.random.default_rng(seed)

    def ask(self) -> Array:
        """The next generation, (population, n)."""
        return first_population(
            self._landscape.starts,
            population=self.population,
            sigma=1e-9,
            binary=self._landscape.binary,
            generator=self._generator,
        )

    def tell(self, losses: Array, violation: Array) -> None:
        """Nothing is learnt."""


def make(name: str, landscape: Landscape, objectives: int, seed: int) -> ParetoOptimizer:
    """An optimiser by its row of the table."""
    if name == "lines":
        return Lines(landscape, seed)
    algorithm = PARETO_ALGORITHMS[name]
    return make_pareto_optimizer(
        OptimizerSpec(algorithm=algorithm, seed=seed),
        starts=landscape.starts,
        objectives=objectives,
        binary=landscape.binary,
    )


def compare(seeds: int) -> None:
    """Print the tables."""
    for genes, switches, objectives in SEARCHES:
        print(f"\n{objectives} objectives, {genes} genes, {switches} of them switches\n")
        print("| optimiser | " + " | ".join(f"{budget} candidates" for budget in BUDGETS) + " |")
        print("|---" * (1 + len(BUDGETS)) + "|")
        for name in ("lines", *PARETO_ALGORITHMS):
            if name == "como_cat_cma_es" and objectives != 2:
                continue
            rows = []
            for seed in range(seeds):
                landscape = Landscape(genes, switches, objectives, seed)
                found = run(make(name, landscape, objectives, seed), landscape, seed)
                best = best_known(landscape, objectives)
                rows.append([found[budget] / best for budget in BUDGETS])
            means = np.mean(rows, axis=0)
            errors = np.std(rows, axis=0, ddof=1) / np.sqrt(seeds)
            cells = [f"{m:.3f} ± {e:.3f}" for m, e in zip(means, errors, strict=True)]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    compare(parser.parse_args().seeds)

#!/usr/bin/env python3
"""Which optimiser finds routes: made-up route searches, equal candidates and seeds for all.

A made-up search has the genes of a data-flow space, a switch for each layer that may be on the
route and a scale for each, and a true score that is known. Candidates are scored by greedy
outcomes on fresh items, as a search does; what is delivered is chosen on validation items, as a
selection does; its true score is reported. Prints Markdown tables and draws a picture.

With --models it searches routes through the demo's models instead, by evomerge's own search.

    python benchmarks/route_search.py [--seeds 20] [--picture benchmarks/route_search.svg]
    python benchmarks/route_search.py --models [--seeds 3] [--candidates 150]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from evomerge.job import OptimizerSpec
from evomerge.optimize import Optimizer, default_population, make_optimizer

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIZES = {34: (2, 18, 1), 70: (3, 12, 2), 190: (2, 32, 3)}
"""Switches of a search: its models, the layers of each, and how often they are laid end to end."""

BUDGETS = (75, 150, 300, 600, 1200)
TABLED = (300, 1200)
ITEMS = 100
POOL, VALIDATION, FINALISTS = 1000, 600, 3


class Landscape:
    """A made-up route search with a score that is known.

    The true score is a probit of a quality. Leaving a layer of the first model out costs quality,
    more where its neighbour is out too; a sixth of them had better be left out. A layer of another
    model, or a repeated one, costs quality; a tenth of them helps, a third of those only beside the
    layer before, a third only while another one is out. Each scale has an optimum of its own near
    1, and the product of all wants to fall as layers are put in. An item is solved where its
    difficulty, and what it thinks of this route in particular, is below the quality.
    """

    def __init__(self, switches: int, seed: int) -> None:
        models, layers, repeats = SIZES[switches]
        draw = np.random.default_rng((switches, seed))
        slots = models * layers * repeats
        self.own = np.arange(slots) < layers
        self.fixed = np.isin(np.arange(slots), (0, layers - 1))
        self.free = np.flatnonzero(~self.fixed)
        own, other = (np.flatnonzero(side & ~self.fixed) for side in (self.own, ~self.own))
        self.effect = np.zeros(slots)
        self.effect[own] = -draw.uniform(0.25, 0.9, own.size)
        self.effect[other] = -draw.uniform(0.05, 0.5, other.size)
        spare = draw.choice(own, round(own.size / 6), replace=False)
        self.helps = draw.choice(other, max(3, round(other.size / 10)), replace=False)
        gains = np.concatenate([spare, self.helps])
        self.effect[gains] = draw.uniform(0.06, 0.18, gains.size)
        # A partner that is the first slot, which is always in, asks for nothing.
        self.partner = np.zeros(slots, dtype=np.intp)
        self.wanted = np.ones(slots, dtype=np.bool_)
        third = self.helps.size // 3
        beside, instead = self.helps[:third], self.helps[third : 2 * third]
        self.partner[beside] = beside - 1
        quiet = np.setdiff1d(beside - 1, np.flatnonzero(self.own | self.fixed))
        self.effect[quiet] = np.abs(self.effect[quiet]) / 5
        self.partner[instead] = np.roll(self.helps, 1)[third : 2 * third]
        self.wanted[instead] = False
        self.optimum = draw.normal(0.0, 0.08, slots)
        self.curvature = draw.uniform(0.45, 0.9, slots)
        traits = 1 + 2 * slots
        self.pool = (draw.normal(size=POOL), draw.normal(size=(POOL, traits)))
        self.unseen = (draw.normal(size=VALIDATION), draw.normal(size=(VALIDATION, traits)))
        self.binary: Mask = np.arange(self.free.size + slots) < self.free.size
        self.start: Array = np.where(self.binary, 0.0, 0.5)
        self.start[self.binary] = self.own[self.free]
        self.offset = 0.0
        self.offset = -0.4 - float(self.quality(self.start[None])[0])

    def read(self, genomes: Array) -> tuple[Mask, Array]:
        """Which slots are on the route, (k, slots), and the logarithms of their scales."""
        on = np.tile(self.fixed, (len(genomes), 1))
        on[:, self.free] = genomes[:, self.binary] > 0.5
        return on, np.where(on, (genomes[:, ~self.binary] - 0.5) * np.log(2.0), 0.0)

    def active(self, genomes: Array) -> Mask:
        """Which genes have an effect, (k, n): every switch, and the scales on the route."""
        on, _ = self.read(genomes)
        return np.concatenate([np.ones((len(on), self.free.size), dtype=np.bool_), on], axis=1)

    def quality(self, genomes: Array) -> Array:
        """What the score grows with, (k,)."""
        on, scales = self.read(genomes)
        met = on[:, self.partner] == self.wanted
        effect = np.where(met, self.effect, np.minimum(self.effect, -0.1))
        gone = ~on & self.own
        put_in = (on & ~self.own).sum(axis=1)
        total = (
            (effect * (on != self.own)).sum(axis=1)
            - 0.3 * (gone[:, 1:] & gone[:, :-1]).sum(axis=1)
            - (on * self.curvature * (scales - self.optimum) ** 2).sum(axis=1)
            - 0.5 * (scales.sum(axis=1) + 0.02 * put_in + 0.1) ** 2
        )
        return np.asarray(self.offset + total)

    def true_score(self, genomes: Array) -> Array:
        """Share of all items that would be solved, (k,)."""
        score: Array = ndtr(self.quality(genomes) / np.sqrt(2.0))
        return score

    def score(self, genomes: Array, items: tuple[Array, Array]) -> Array:
        """Share of these items that are solved, (k,)."""
        difficulty, views = items
        on, scales = self.read(genomes)
        traits = np.concatenate([np.ones((len(on), 1)), on != self.own, 3 * scales], axis=1)
        traits /= np.linalg.norm(traits, axis=1, keepdims=True)
        solved = self.quality(genomes)[:, None] > difficulty + traits @ views.T
        share: Array = solved.mean(axis=1)
        return share


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An optimiser as it takes part.

    factor: of its default population. conditional: whether it is told which genes had no effect.
    seeds: its most, where it is too slow for all.
    """

    algorithm: str
    factor: int = 1
    conditional: bool = True
    seeds: int | None = None
    budgets: tuple[int, ...] = BUDGETS
    sizes: tuple[int, ...] = tuple(SIZES)

    def make(self, landscape: Landscape, seed: int) -> Optimizer:
        """The optimiser at its start."""
        population = self.factor * default_population(landscape.start.size)
        spec = OptimizerSpec(algorithm=self.algorithm, seed=seed, population=population)
        return make_optimizer(spec, start=landscape.start, binary=landscape.binary)


ENTRIES = {
    "cat_cma_es": Entry(algorithm="cat_cma_es"),
    "cma_es": Entry(algorithm="cma_es"),
    "cma_es_threshold": Entry(algorithm="cma_es_threshold"),
    # Its time grows with genes and candidates: hours for all sizes.
    "tpe": Entry(algorithm="tpe", seeds=10, budgets=(75, 150, 300), sizes=(34,)),
    "random": Entry(algorithm="random"),
    "cat_cma_es, idle genes told as live": Entry(algorithm="cat_cma_es", conditional=False),
    "cma_es, idle genes told as live": Entry(algorithm="cma_es", conditional=False),
    "cat_cma_es, population doubled": Entry(algorithm="cat_cma_es", factor=2),
    "cma_es, population doubled": Entry(algorithm="cma_es", factor=2),
}

DRAWN = ("cat_cma_es", "cma_es", "cma_es_threshold", "tpe", "random")

Scores = dict[tuple[str, int, int], list[float]]
"""Entry, switches, budget -> true score of what each seed delivers."""


def search(entry: Entry, landscape: Landscape, seed: int) -> dict[int, float]:
    """Budget -> true score of what a search that ends there delivers."""
    optimizer = entry.make(landscape, seed)
    draw = np.random.default_rng(seed)
    means: list[Array] = []
    seen: list[tuple[float, Array]] = []
    delivered: dict[int, float] = {}
    for budget in entry.budgets:
        while len(seen) + optimizer.population <= budget and optimizer.stop is None:
            genomes = optimizer.ask()
            items = draw.choice(POOL, ITEMS, replace=False)
            difficulty, views = landscape.pool
            scores = landscape.score(genomes, (difficulty[items], views[items]))
            optimizer.tell(-scores, landscape.active(genomes) if entry.conditional else None)
            seen += zip(scores.tolist(), genomes, strict=True)
            if optimizer.mean is not None:
                means.append(optimizer.mean)
        delivered[budget] = deliver(landscape, means, seen)
    return delivered


def deliver(
    landscape: Landscape, means: Sequence[Array], seen: Sequence[tuple[float, Array]]
) -> float:
    """True score of the finalist that is best on the validation items."""
    finalists = [landscape.start]
    if means:
        finalists += [np.mean(means[len(means) // 2 :], axis=0), means[-1]]
    best = sorted(seen, key=lambda pair: -pair[0])[:FINALISTS]
    genomes = np.array([*finalists, *(genome for _, genome in best)])
    winner = int(np.argmax(landscape.score(genomes, landscape.unseen)))
    return float(landscape.true_score(genomes[winner : winner + 1])[0])


def run_all(seeds: int) -> Scores:
    """Every entry on every size and seed; says on the way how long each takes."""
    scores: Scores = {}
    for name, entry in ENTRIES.items():
        for switches in entry.sizes:
            began = time.perf_counter()
            for seed in range(min(seeds, entry.seeds or seeds)):
                for budget, score in search(entry, Landscape(switches, seed), seed).items():
                    scores.setdefault((name, switches, budget), []).append(score)
            print(f"{name}, {switches}: {time.perf_counter() - began:.0f} s", flush=True)
    return scores


def print_scores(scores: Scores) -> None:
    """Median and quartiles of the true scores delivered."""
    columns = [(switches, budget) for switches in SIZES for budget in TABLED]
    print_head("optimiser", columns)
    for name in ENTRIES:
        cells = []
        for switches, budget in columns:
            found = scores.get((name, switches, budget))
            low, middle, high = np.quantile(found, (0.25, 0.5, 0.75)) if found else (0.0,) * 3
            cells.append(f"{middle:.3f} ({low:.3f}-{high:.3f})" if found else "")
        print(f"| {name} | {' | '.join(cells)} |")


def print_differences(scores: Scores, reference: str) -> None:
    """Mean difference to one entry over the seeds, with its standard error."""
    columns = [(switches, budget) for switches in SIZES for budget in TABLED]
    print_head(f"less than {reference} by", columns)
    for name in ENTRIES:
        if name == reference:
            continue
        cells = []
        for switches, budget in columns:
            found = scores.get((name, switches, budget))
            if found is None:
                cells.append("")
                continue
            gap = np.subtract(scores[reference, switches, budget][: len(found)], found)
            cells.append(f"{gap.mean():+.3f} ± {gap.std(ddof=1) / np.sqrt(gap.size):.3f}")
        print(f"| {name} | {' | '.join(cells)} |")


def print_head(title: str, columns: Sequence[tuple[int, int]]) -> None:
    """Head of a table with a column for each size and budget."""
    heads = [f"{switches} switches, {budget}" for switches, budget in columns]
    print(f"\n| {title} | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")


def draw_picture(scores: Mapping[tuple[str, int, int], Sequence[float]], picture: Path) -> None:
    """Median and quartiles over the candidates, a panel for each size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, len(SIZES), sharey=True)
    for axes, switches in zip(panels, SIZES, strict=True):
        for place, name in enumerate(DRAWN):
            budgets = [budget for budget in BUDGETS if (name, switches, budget) in scores]
            if budgets:
                found = [scores[name, switches, budget] for budget in budgets]
                low, middle, high = np.quantile(found, (0.25, 0.5, 0.75), axis=1)
                axes.plot(budgets, middle, f"C{place}", marker="o", markersize=3, label=name)
                axes.fill_between(budgets, low, high, color=f"C{place}", alpha=0.15)
        axes.set(xlabel="candidates", title=f"{switches} switches", xscale="log")
        axes.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="true score delivered")
    panels[0].legend(frameon=False, fontsize="small")
    figure.savefig(picture)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--seeds", type=int, help="20; with --models 3")
    parser.add_argument("--candidates", type=int, default=150, help="of each search with --models")
    picture = Path(__file__).with_name("route_search.svg")
    parser.add_argument("--picture", type=Path, default=picture)
    chosen = parser.parse_args()
    if chosen.models:
        from route_search_models import compare_on_models

        compare_on_models(chosen.seeds or 3, chosen.candidates)
        return
    scores = run_all(chosen.seeds or 20)
    print_scores(scores)
    print_differences(scores, "cat_cma_es")
    draw_picture(scores, chosen.picture)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What a search delivers for the items it scores: evomerge's loop and its parts, compared.

Made-up merges of 6 to 192 genes whose true score is known (simulated_search.py says how they are
made), searched by evomerge's own loop; with --models the demo's experts, searched for real. The
true score is that of items that nothing was proposed or chosen by. All items are counted, those of
baselines and of validation too. Prints Markdown tables and draws a picture.

    python benchmarks/search_quality.py [--seeds 20] [--picture benchmarks/search_quality.svg]
    python benchmarks/search_quality.py --models [--seeds 10]
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# A process for each core, so one thread each; this must come before numpy loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cma
import numpy as np
from model_search import ModelProblem
from numpy.typing import NDArray
from simulated_search import SimulatedProblem

from evomerge.optimize import default_population
from evomerge.optimize.cma_es import strategy_options
from evomerge.search.ledger import Ledger
from evomerge.search.loop import Ending, run_search
from evomerge.search.proposer import Proposer, SingleProposer
from evomerge.search.selection.finalists import Entrant, entrant_of
from evomerge.search.selection.validation import validate

Array = NDArray[np.float64]
GENES = (6, 24, 64, 192)
CURVE = (7_500, 10_000, 15_000, 20_000, 60_000)


class PlainCma(SingleProposer):
    """pycma as it comes, but for the transform at the bounds and the tests for flat fitness."""

    def __init__(self, ledger: Ledger, thresholds: Sequence[float]) -> None:
        super().__init__(ledger)
        preparation = ledger.preparation
        start, spec = preparation.space.start, preparation.optimizer
        n = start.size
        self.population = default_population(n)
        options = strategy_options(n, self.population, spec.seed)
        del options["CMA_cmean"], options["CMA_on"]
        self._strategy = cma.CMAEvolutionStrategy(start, spec.sigma, options)
        self._asked: list[Array] = []

    def ask(self) -> Array:
        """See Proposer."""
        self._asked = self._strategy.ask()
        return np.array(self._asked)

    def tell(self, trials: Sequence[object], fitness: Array, active: NDArray[np.bool_]) -> None:
        """See Proposer."""
        self._strategy.tell(self._asked, fitness.tolist())

    @property
    def mean(self) -> Array:
        """See Proposer."""
        return np.array(self._strategy.result.xfavorite, dtype=np.float64)

    @property
    def stop(self) -> None:
        """Never: a budget ends it."""
        return None


def own(ledger: Ledger, _thresholds: Sequence[float]) -> Proposer:
    """The job's own optimiser, as evomerge sets it up."""
    return SingleProposer(ledger)


Deliver = Callable[[Ledger, Ending], Entrant]


def best_score(ledger: Ledger, _ending: Ending) -> Entrant:
    """The candidate of the highest search score."""
    return entrant_of(ledger.fittest("genome")[0], "finalist")


def last_mean(ledger: Ledger, ending: Ending) -> Entrant:
    """The mean of the distribution at the end."""
    return _of_genome(ledger, ending.means[-1])


def averaged_means(ledger: Ledger, ending: Ending) -> Entrant:
    """The average of the distribution's means over the second half of the search."""
    return _of_genome(ledger, np.mean(ending.means[len(ending.means) // 2 :], axis=0))


def best_elite(ledger: Ledger, ending: Ending) -> Entrant:
    """Who is believed to be the best."""
    return entrant_of(ledger.study.trial(ending.elites[0]), "finalist")


def validated(ledger: Ledger, ending: Ending) -> Entrant:
    """As evomerge does: the best on validation of means, candidates, and the starts."""
    return validate(ledger, ending).ranked[0][0]


def _of_genome(ledger: Ledger, genome: Array) -> Entrant:
    recipe = ledger.preparation.space.decode(genome)
    return Entrant(label="", role="finalist", recipe=recipe, genome=tuple(genome.tolist()))


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to search. budget: in shares of the economical one; candidates: instead of items.

    each: items of a candidate, in shares of the problem's own number.
    """

    name: str
    evaluation: Mapping[str, Any]
    deliver: Deliver
    propose: Callable[[Ledger, Sequence[float]], Proposer] = own
    algorithm: str = "auto"
    budget: float = 1.0
    each: float = 1.0
    candidates: bool = False
    textbook_population: bool = False


PLAIN: dict[str, Any] = {"draws": "fresh", "racing": False}

PAPER = Method(
    name="every candidate on all items, best delivered (the paper)",
    evaluation={"draws": "all", "racing": False},
    propose=PlainCma,
    deliver=best_score,
    candidates=True,
)
ALL_TOGETHER = Method(name="**all together, as evomerge does**", evaluation={}, deliver=validated)

METHODS = (
    PAPER,
    Method(
        name="one fixed subset, best delivered",
        evaluation={"draws": "fixed", "racing": False},
        propose=PlainCma,
        deliver=best_score,
        budget=2.0,
    ),
    Method(
        name="fresh draws, last mean delivered",
        evaluation=PLAIN,
        propose=PlainCma,
        deliver=last_mean,
    ),
    Method(
        name="fresh draws, means averaged (rates halved, population doubled from 16 genes on)",
        evaluation=PLAIN,
        algorithm="cma_es",
        deliver=averaged_means,
    ),
    Method(
        name="the same, population not doubled",
        evaluation=PLAIN,
        algorithm="cma_es",
        deliver=averaged_means,
        textbook_population=True,
    ),
    Method(
        name="fresh draws, means averaged, rates adapted to the noise from 16 genes on",
        evaluation=PLAIN,
        deliver=averaged_means,
    ),
    Method(
        name="+ twice the items a candidate",
        evaluation=PLAIN,
        deliver=averaged_means,
        each=2.0,
    ),
    Method(
        name="+ half the items a candidate",
        evaluation=PLAIN,
        deliver=averaged_means,
        each=0.5,
    ),
    Method(
        name="+ informative draws",
        evaluation={"draws": "informative", "racing": False},
        deliver=averaged_means,
    ),
    Method(
        name="+ racing",
        evaluation={"draws": "fresh"},
        deliver=averaged_means,
    ),
    Method(
        name="+ growing fidelity",
        evaluation={**PLAIN, "growing": True},
        deliver=averaged_means,
    ),
    Method(
        name="+ two elites carried, the best delivered",
        evaluation={**PLAIN, "elites": 2},
        deliver=best_elite,
    ),
    Method(
        name="+ anchors or IRT, whichever measures better",
        evaluation={"draws": "anchors"},
        deliver=averaged_means,
        budget=2.0,  # the first generation, on all items, takes one already
    ),
    Method(
        name="TPE, fresh draws, best validated",
        evaluation=PLAIN,
        deliver=validated,
        algorithm="tpe",
    ),
    Method(
        name="random, fresh draws, best validated",
        evaluation=PLAIN,
        deliver=validated,
        algorithm="random",
    ),
    ALL_TOGETHER,
    Method(
        name="all together, but halved rates from 16 genes on",
        evaluation={},
        algorithm="cma_es",
        deliver=validated,
    ),
    Method(
        name="all together, but adapted rates at any number of genes",
        evaluation={},
        algorithm="lra_cma_es",
        deliver=validated,
    ),
    Method(
        name="all together, growing, two elites",
        evaluation={"growing": True, "elites": 2},
        deliver=validated,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one search came to. items: all that were scored, by anyone, before the final score."""

    score: float
    start: float
    items: int
    seconds: float
    label: str


Problem = SimulatedProblem | ModelProblem


def run(problem: Problem, method: Method, *, budget: int | None = None) -> Run:
    """Search, deliver, and score what is delivered on unseen items."""
    began = time.perf_counter()
    population = default_population(problem.genes) if method.textbook_population else "auto"
    limit: dict[str, int] = {"candidates": problem.candidates}
    if not method.candidates:
        wanted = budget if budget is not None else int(problem.items * method.budget)
        spare = problem.reserve(validated=method.deliver is validated)
        limit = {"items": max(wanted - spare, 1)}
    ledger = problem.open(
        evaluation={"items_per_generation": int(problem.each * method.each), **method.evaluation},
        optimizer={"algorithm": method.algorithm, "population": population},
        budget=limit,
    )
    ending = run_search(ledger, propose=method.propose)
    delivered = method.deliver(ledger, ending)
    kinds = ("baseline", "genome", "elite", "finalist")
    scored = [trial for kind in kinds for trial in ledger.study.trials_of(kind)]  # type: ignore[arg-type]
    return Run(
        score=problem.true_score(ledger, delivered),
        start=problem.start_score(ledger),
        items=sum(trial.item_count for trial in scored),
        seconds=time.perf_counter() - began,
        label=delivered.label,
    )


def simulate(task: tuple[int, int, int, int | None]) -> Run:
    """One search of a made-up landscape: genes, seed, method, budget of items."""
    genes, seed, method, budget = task
    return run(SimulatedProblem(genes, seed), METHODS[method], budget=budget)


def search_models(task: tuple[int, int]) -> Run:
    """One search over the demo's models: seed, method."""
    seed, method = task
    return run(ModelProblem(seed), METHODS[method])


def cell(runs: Sequence[Run]) -> str:
    """Median of the delivered true scores, and their mean with its standard error."""
    scores = np.array([one.score for one in runs])
    error = scores.std(ddof=1) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    return f"**{np.median(scores):.3f}** ({scores.mean():.3f} ± {error:.3f})"


def below(runs: Sequence[Run]) -> str:
    """In how many runs what was delivered is truly below the start."""
    return f"{sum(one.score < one.start for one in runs)}/{len(runs)}"


def row(name: str, columns: Sequence[Sequence[Run]]) -> str:
    """A line of the table: items, then score and runs below the start for each problem."""
    items = np.median([one.items for runs in columns for one in runs])
    cells = " | ".join(f"{cell(runs)} {below(runs)}" for runs in columns)
    return f"| {name} | {items / 1000:,.0f}k | {cells} |"


def fewer(paper: Sequence[Run], curve: Sequence[Sequence[Run]]) -> str:
    """How many times fewer items the product's way needs to deliver as good a model.

    Seed by seed: the fewest items on the curve whose delivered model is truly no worse than what
    the full evaluation delivers on the same landscape; infinitely many where none is. The median.
    """
    ratios = []
    for seed, full in enumerate(paper):
        reached = [runs[seed].items for runs in curve if runs[seed].score >= full.score]
        ratios.append(full.items / min(reached) if reached else 0.0)
    return f"{np.median(ratios):.0f}"


def against(paper: Sequence[Run], runs: Sequence[Run]) -> str:
    """True scores set against the full evaluation's, landscape by landscape."""
    apart = np.array([one.score - full.score for one, full in zip(runs, paper, strict=True)])
    error = apart.std(ddof=1) / math.sqrt(len(apart))
    reached = int((apart >= 0.0).sum())
    return f"**{np.median(apart):+.4f}** ({apart.mean():+.4f} ± {error:.4f}) {reached}/{len(apart)}"


@dataclass(frozen=True, kw_only=True)
class Runs:
    """All runs of a method at once, on every core; those that were kept are not run again.

    folder: where runs are kept as they end, one file a method and problem; None to keep none.
    """

    seeds: int
    folder: Path | None

    def search(self, name: str, work: Callable[[Any], Run], tasks: Sequence[Any]) -> list[Run]:
        """The runs of the tasks, in their order; one task a seed."""
        file = self.folder / f"{name}-{self.seeds}.json" if self.folder is not None else None
        if file is not None and file.exists():
            return [Run(**kept) for kept in json.loads(file.read_text(encoding="utf-8"))]
        # Torch's threads do not survive a fork.
        with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
            runs = pool.map(work, tasks, chunksize=1)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps([asdict(one) for one in runs]), encoding="utf-8")
        return runs

    def simulated(self, number: int, n: int, budget: int | None = None) -> list[Run]:
        """Searches of made-up landscapes of n genes by one method."""
        tasks = [(n, seed, number, budget) for seed in range(self.seeds)]
        return self.search(f"simulated-{number}-{n}-{budget or 'whole'}", simulate, tasks)

    def of_models(self, number: int) -> list[Run]:
        """Searches over the demo's models by one method."""
        tasks = [(seed, number) for seed in range(self.seeds)]
        return self.search(f"models-{number}", search_models, tasks)


def tabulate_landscapes(
    runs: Runs, genes: Sequence[int], methods: Sequence[int], picture: Path | None
) -> None:
    """The whole comparison on made-up landscapes, and the curve of the product's own way."""
    print(f"| search | items | {' | '.join(f'{n} genes' for n in genes)} |")
    print(f"|---|---:|{'---:|' * len(genes)}")
    found: dict[tuple[int, int], list[Run]] = {}
    for number in methods:
        for n in genes:
            found[number, n] = runs.simulated(number, n)
        print(row(METHODS[number].name, [found[number, n] for n in genes]), flush=True)
    starts = [f"{np.median([one.start for one in found[methods[0], n]]):.3f}" for n in genes]
    print(f"| the start | | {' | '.join(starts)} |")
    if len(methods) < len(METHODS):
        return
    paper, ours = METHODS.index(PAPER), METHODS.index(ALL_TOGETHER)
    curves: dict[int, list[list[Run]]] = {n: [] for n in genes}
    print("\n| all together, by items | " + " | ".join(f"{n} genes" for n in genes) + " |")
    print(f"|---:|{'---:|' * len(genes)}")
    for budget in CURVE:
        for n in genes:
            curves[n].append(runs.simulated(ours, n, budget))
        cells = " | ".join(f"{cell(curves[n][-1])} {below(curves[n][-1])}" for n in genes)
        items = np.median([one.items for n in genes for one in curves[n][-1]])
        print(f"| {items / 1000:,.1f}k | {cells} |", flush=True)
    print("\n| all together against the paper | " + " | ".join(f"{n} genes" for n in genes) + " |")
    print(f"|---|{'---:|' * len(genes)}")
    apart = (against(found[paper, n], found[ours, n]) for n in genes)
    print(f"| true score on the same landscape; no worse in | {' | '.join(apart)} |")
    ratios = (fewer(found[paper, n], [*curves[n], found[ours, n]]) for n in genes)
    print(f"| times fewer items to its true score | {' | '.join(ratios)} |")
    if picture is not None:
        draw(genes, found, curves, picture)


def draw(
    genes: Sequence[int],
    found: Mapping[tuple[int, int], Sequence[Run]],
    curves: Mapping[int, Sequence[Sequence[Run]]],
    picture: Path,
) -> None:
    """Above what every method delivers, below the product's own way by items scored."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(genes), figsize=(4 + 3 * len(genes), 8), height_ratios=(3, 2), layout="constrained"
    )
    paper, ours = METHODS.index(PAPER), METHODS.index(ALL_TOGETHER)
    names = []
    for number, method in enumerate(METHODS):
        items = np.median([one.items for n in genes for one in found[number, n]])
        names.append(f"{method.name.strip('*')} · {items / 1000:.0f}k")
    for column, n in enumerate(genes):
        methods, curve = axes[0, column], axes[1, column]
        for number in range(len(METHODS)):
            low, middle, high = _quartiles(found[number, n])
            colour = "C3" if number == ours else "C0" if number == paper else "0.35"
            methods.plot([low, high], [number, number], color=colour, linewidth=1)
            methods.plot(middle, number, "o", color=colour)
        methods.set_yticks(range(len(METHODS)), names if column == 0 else [""] * len(METHODS))
        methods.invert_yaxis()
        methods.set_title(f"{n} genes")
        spent = sorted([*curves[n], found[ours, n]], key=_items)
        bands = np.array([_quartiles(runs) for runs in spent])
        curve.fill_between([*map(_items, spent)], bands[:, 0], bands[:, 2], color="C3", alpha=0.15)
        curve.plot([*map(_items, spent)], bands[:, 1], "o-", color="C3", label="all together")
        low, middle, high = _quartiles(found[paper, n])
        at = _items(found[paper, n])
        curve.plot([at, at], [low, high], color="C0", linewidth=1)
        curve.plot(at, middle, "o", color="C0", label="the paper")
        curve.set_xscale("log")
        curve.set_xlabel("items scored")
        start = np.median([one.start for one in found[paper, n]])
        for axis, line in ((methods, methods.axvline), (curve, curve.axhline)):
            line(start, color="grey", linestyle=":", label="the start")
            axis.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_ylabel("true score of what is delivered")
    axes[1, 0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.08))
    figure.suptitle(
        "True score of what is delivered: medians and quartiles of the seeds; items scored in all"
    )
    figure.savefig(picture)


def _quartiles(runs: Sequence[Run]) -> tuple[float, float, float]:
    low, middle, high = np.quantile([one.score for one in runs], (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def _items(runs: Sequence[Run]) -> float:
    return float(np.median([one.items for one in runs]))


def tabulate_models(runs: Runs, methods: Sequence[int]) -> None:
    """The comparison on the demo's experts."""
    print("| search | items | true score, below the start | s a search |")
    print("|---|---:|---:|---:|")
    found: dict[int, list[Run]] = {}
    for number in methods:
        found[number] = runs.of_models(number)
        seconds = np.median([one.seconds for one in found[number]])
        print(f"{row(METHODS[number].name, [found[number]])} {seconds:.0f} |", flush=True)
    print(f"| the start | | {np.median([one.start for one in found[methods[0]]]):.3f} | |")
    paper, ours = METHODS.index(PAPER), METHODS.index(ALL_TOGETHER)
    if paper in found and ours in found:
        print(f"\nAll together against the paper: {against(found[paper], found[ours])}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=None, help="20; with --models 10")
    parser.add_argument("--genes", type=int, nargs="+", default=list(GENES))
    parser.add_argument("--models", action="store_true", help="search the demo's models instead")
    parser.add_argument("--methods", type=int, nargs="+", default=None, help="numbers, from 0")
    parser.add_argument("--picture", type=Path, default=None, help="where to draw it (SVG)")
    parser.add_argument("--keep", type=Path, default=None, help="folder of runs, to go on later")
    options = parser.parse_args()
    methods = options.methods or range(len(METHODS))
    runs = Runs(seeds=options.seeds or (10 if options.models else 20), folder=options.keep)
    if options.models:
        tabulate_models(runs, methods)
    else:
        tabulate_landscapes(runs, options.genes, methods, options.picture)


if __name__ == "__main__":
    main()

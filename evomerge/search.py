"""The search loop: baselines, then generations of ask, merge, score, record, tell.

The loop holds no state that the record does not: run again over a record, it asks for the same
genomes, takes the recorded outcomes as they are, and goes on from the first candidate without one.
That is all there is to resuming. Nothing here knows files, devices or processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Candidate, CandidateKey, ItemIds, count_items
from evomerge.errors import WorkerError
from evomerge.evaluate.splits import draw
from evomerge.job import BudgetSpec
from evomerge.ledger import Ledger
from evomerge.optimize import make_optimizer
from evomerge.optimize.baselines import Baseline, Baselines, only
from evomerge.preparation import Preparation
from evomerge.study import Trial

BASELINES = 0
"""The generation of the baselines; the optimiser's own count from 1, on through the stages."""

SPACE_START = "start of the space"
"""The space's own start, scored among the baselines: the search begins there if it is the best."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a search, or a stage of it, ended.

    first, last: its generations are those after `first` up to `last`. means: mean of the
    optimiser's distribution after each of them, (n,) in [0, 1]; empty where it has none. reason: in
    words, for the user.
    """

    first: int = 0
    last: int
    means: tuple[NDArray[np.float64], ...]
    reason: str


def run_search(ledger: Ledger, *, after: int = 0) -> Ending:
    """Search the present stage until its part of the budget or the optimiser says stop.

    The first stage scores the baselines before. after: the last generation of the stages before.
    Raises WorkerError when no baseline can be scored: then nothing else could be either.
    """
    preparation = ledger.preparation
    if preparation.stage == 0:
        _score_baselines(ledger)
    thresholds = ledger.thresholds()
    space = preparation.space
    switches = np.array([gene.binary for gene in space.genes])
    optimizer = make_optimizer(preparation.optimizer, start=_start(ledger), binary=switches)
    budget = preparation.job.budget_after(preparation.stage)
    means: list[NDArray[np.float64]] = []
    recorded = ledger.study.trials_of("genome")
    spent = [trial for trial in recorded if trial.key.generation <= after]
    # What is recorded is told whatever the budget says now, and a stage is never empty.
    least = max([after + 1, *(trial.key.generation for trial in recorded)])
    generation = after
    items = count_items(_draw(preparation, 1, preparation.job.evaluation.items_per_generation))
    while True:
        reason = _end(budget, spent, optimizer.population, items) if generation >= least else None
        reason = reason or optimizer.stop
        if reason is not None:
            break
        generation += 1
        genomes = optimizer.ask()
        ledger.observe("asked", CandidateKey(generation, 0))
        trials = ledger.complete(_candidates(preparation, generation, genomes))
        active = np.array([space.active(genome) for genome in genomes])
        optimizer.tell(ledger.fitness(trials, thresholds), active)
        ledger.observe("told", CandidateKey(generation, 0))
        spent += trials
        if optimizer.mean is not None:
            means.append(optimizer.mean)
    return Ending(first=after, last=generation, means=tuple(means), reason=reason)


def _score_baselines(ledger: Ledger) -> None:
    """The space's start and the usual defaults, in stages: a greedy soup needs scores."""
    preparation, job = ledger.preparation, ledger.preparation.job
    baselines = Baselines(
        base=job.models.base,
        sources=job.models.sources,
        out_dtype=preparation.out_dtype,
        seed=job.optimizer.seed,
    )
    items = _draw(preparation, BASELINES, job.evaluation.items_for_baselines)
    start = preparation.space.decode(preparation.space.start)
    stage = (*baselines.stage({}), Baseline(label=SPACE_START, recipe=start))
    scores: dict[str, float | None] = {}
    while stage:
        trials = ledger.complete(_baseline_candidates(stage, items, first=len(scores)))
        scores |= {trial.label: trial.score for trial in trials}
        if all(score is None for score in scores.values()):
            raise WorkerError(f"no baseline could be scored: {trials[0].failure}")
        stage = baselines.stage(scores)


def _start(ledger: Ledger) -> NDArray[np.float64]:
    """The winner of the stage before, or the best baseline, that the space can express.

    Else the space's own start.
    """
    preparation = ledger.preparation
    if preparation.winners:
        winner = only(list(preparation.winners)[-1], out_dtype=preparation.out_dtype)
        known = [winner.model_copy(update={"stages": dict(preparation.winners)})]
    else:
        known = [trial.recipe for trial in ledger.fittest("baseline")]
    for recipe in known:
        genome = preparation.space.encode(recipe)
        if genome is not None:
            return genome
    return preparation.space.start


def _end(budget: BudgetSpec, spent: Sequence[Trial], population: int, each: int) -> str | None:
    """Why the next generation is not begun, or None. Only what is recorded counts."""
    if budget.candidates is not None and len(spent) + population > budget.candidates:
        return f"{len(spent)} of {budget.candidates} candidates scored, no room for more"
    items = sum(sum(trial.items.values()) for trial in spent)
    if budget.items is not None and items + population * each > budget.items:
        return f"{items} of {budget.items} items scored, no room for more"
    hours = sum(trial.cost.merge_s + trial.cost.evaluate_s for trial in spent) / 3600
    if budget.hours is not None and hours >= budget.hours:
        return f"{hours:.2f} of {budget.hours:g} worker hours spent"
    return None


def _candidates(
    preparation: Preparation, generation: int, genomes: NDArray[np.float64]
) -> list[Candidate]:
    """The genomes of a generation, all on the same fresh draw of items."""
    items = _draw(preparation, generation, preparation.job.evaluation.items_per_generation)
    return [
        Candidate(
            key=(key := CandidateKey(generation, place)),
            kind="genome",
            label=str(key),
            recipe=preparation.space.decode(genome),
            items=items,
            genome=tuple(genome.tolist()),
            stage=preparation.stage,
        )
        for place, genome in enumerate(genomes)
    ]


def _baseline_candidates(
    stage: Sequence[Baseline], items: ItemIds, *, first: int
) -> list[Candidate]:
    return [
        Candidate(
            key=CandidateKey(BASELINES, place),
            kind="baseline",
            label=baseline.label,
            recipe=baseline.recipe,
            items=items,
        )
        for place, baseline in enumerate(stage, start=first)
    ]


def _draw(preparation: Preparation, generation: int, total: int) -> ItemIds:
    job = preparation.job
    pools = {task: preparation.suite.items(task, "search") for task in job.search_tasks}
    return draw(pools, total, seed=job.optimizer.seed, generation=generation)

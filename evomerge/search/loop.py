"""The search loop: baselines, then generations of ask, merge, score, record, tell.

The record holds all state of the loop. When the loop runs again over a record, it asks for the same
genomes, takes the recorded outcomes as they are, and goes on from the first candidate without an
outcome. This is how a search resumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import WorkerError
from evomerge.evaluate import Candidate, CandidateKey, ItemIds, Objective, draw
from evomerge.search.baselines import Baseline, Baselines
from evomerge.search.budget import Budget
from evomerge.search.generation import Generations
from evomerge.search.ledger import Ledger
from evomerge.search.proposer import Propose, make_proposer
from evomerge.search.sampling.samplers import sampler_of
from evomerge.study import Trial
from evomerge.workers import PreparedJob

BASELINES = 0
"""The generation of the baselines. Those of the optimiser count from 1, through all stages."""

SPACE_START = "start of the space"
"""Label of the space's own start, a baseline; the search begins there if it is the best one."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a search, or a stage of it, ended.

    first, last: its generations are those after `first` up to `last`. means: mean of the
    optimiser's distribution after each of them, (n,) in [0, 1]; empty where it has none. elites:
    the best candidates by the present estimates, the best first. reason: why it ended, in words
    for the user.
    """

    first: int = 0
    last: int
    means: tuple[NDArray[np.float64], ...]
    elites: tuple[CandidateKey, ...] = ()
    reason: str


def run_search(
    ledger: Ledger,
    *,
    after: int = 0,
    until: int | None = None,
    propose: Propose = make_proposer,
) -> Ending:
    """Search the present stage until its part of the budget is spent or the optimiser stops.

    The first stage begins with the baselines. after: the last generation of the stages before.
    until: the last generation of this stage, where it has ended and is run again over its record.
    propose: makes the proposer of genomes. Raises WorkerError when no baseline can be scored:
    then no candidate could be scored either.
    """
    preparation = ledger.preparation
    sampler_of(preparation.job.evaluation.draws)  # refuses an unusable sampler before any cost
    if preparation.stage == 0:
        _score_baselines(ledger)
    thresholds = ledger.thresholds()
    space = preparation.space
    optimizer = propose(ledger, thresholds)
    means: list[NDArray[np.float64]] = []
    recorded = [*ledger.study.trials_of("genome"), *ledger.study.trials_of("elite")]
    recorded = [trial for trial in recorded if until is None or trial.key.generation <= until]
    spent = [trial for trial in recorded if trial.key.generation <= after]
    # Recorded generations are told whatever the present budget is, and a stage is never empty.
    least = max([after + 1, *(trial.key.generation for trial in recorded)])
    generation = after
    generations = Generations(ledger, thresholds)
    budget = Budget(
        budget=preparation.job.budget_after(preparation.stage),
        each=preparation.items_each,
        population=optimizer.population,
        elites=preparation.job.evaluation.elites,
    )
    while True:
        items = generations.items(generation + 1, affordable=budget.affordable(spent))
        reason = budget.end(spent, generations.count(items)) if generation >= least else None
        reason = "it has ended" if generation == until else reason or optimizer.stop
        if reason is not None:
            break
        generation += 1
        genomes = optimizer.ask()
        ledger.observe("asked", CandidateKey(generation, 0))
        scored = generations.score(
            generation, _candidates(preparation, generation, genomes), items=items
        )
        active = np.array([space.active(genome) for genome in genomes])
        optimizer.tell(scored.trials, scored.fitness, active)
        ledger.observe("told", CandidateKey(generation, 0))
        spent += [*scored.trials, *scored.elites]
        if optimizer.mean is not None:
            means.append(optimizer.mean)
    return Ending(
        first=after,
        last=generation,
        means=tuple(means),
        elites=tuple(elite.key for elite in generations.elites),
        reason=reason,
    )


def _score_baselines(ledger: Ledger) -> None:
    """Score the space's start and the default merges, in stages: a greedy soup needs scores."""
    preparation, job = ledger.preparation, ledger.preparation.job
    baselines = Baselines(
        base=job.models.base,
        sources=job.models.sources,
        out_dtype=preparation.out_dtype,
        seed=job.optimizer.seed,
    )
    items = _baseline_items(preparation)
    start = preparation.space.decode(preparation.space.start)
    stage = (*baselines.stage({}), Baseline(label=SPACE_START, recipe=start))
    scores: dict[str, float | None] = {}
    while stage:
        none_yet = all(score is None for score in scores.values())
        trials = ledger.complete(
            _baseline_candidates(stage, items, first=len(scores)),
            some_of="baseline" if none_yet else "",
        )
        scores |= {trial.label: trial.score for trial in trials}
        if all(score is None for score in scores.values()):
            raise WorkerError(f"no baseline could be scored: {trials[0].failure}")
        stage = baselines.stage(scores)
    remark = _remark_on(ledger.study.trials_of("baseline"), preparation.objective)
    if remark is not None:
        ledger.say(f"note: {remark}")


def _remark_on(baselines: Sequence[Trial], objective: Objective) -> str | None:
    """Why a search has nothing to find: a model is perfect, or no model is ever right."""
    axes = [metric for metric in objective.axes if metric.higher_is_better]
    scored = [trial for trial in baselines if trial.failure is None]
    if not scored or len(axes) < len(objective.axes):
        return None
    reached = [[axis.mean(trial.means) for axis in axes] for trial in scored]
    perfect = [t.label for t, values in zip(scored, reached, strict=True) if min(values) == 1.0]
    if perfect:
        others = f" (so do {len(perfect) - 1} more)" if len(perfect) > 1 else ""
        return (
            f"{perfect[0]} scores 1.000 in everything before any search{others}: there is hardly "
            "anything to gain; give harder tasks, or more items"
        )
    if not any(map(any, reached)):
        return (
            f"all {len(scored)} baselines score 0.000 in everything: the search cannot tell merges "
            "apart; check the tasks' prompts and filters, or give easier tasks"
        )
    return None


def _candidates(
    preparation: PreparedJob, generation: int, genomes: NDArray[np.float64]
) -> list[Candidate]:
    """The candidates of a generation; their items are drawn later."""
    return [
        Candidate(
            key=(key := CandidateKey(generation, place)),
            kind="genome",
            label=str(key),
            recipe=preparation.space.decode(genome),
            items={},
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
            keep_answers=True,
        )
        for place, baseline in enumerate(stage, start=first)
    ]


def _baseline_items(preparation: PreparedJob) -> ItemIds:
    """The baselines' own draw; all items where their answers are needed to choose later items."""
    job = preparation.job
    pools = {task: preparation.suite.items(task, "search") for task in job.search_tasks}
    if job.evaluation.draw_facts.asks_all_first:
        return pools
    total = job.evaluation.items_for_baselines
    return draw(pools, total, seed=job.optimizer.seed, generation=BASELINES)

"""What a search will score: models and items of every phase, before anything is scored.

The numbers come from the code that plans a search. Where they depend on scores, there is a least
and a most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evomerge.evaluate import Phase, Split, share_evenly
from evomerge.optimize import choose_population
from evomerge.search.baselines import Baselines, parent_labels
from evomerge.search.budget import Budget
from evomerge.search.race import count_blocks
from evomerge.search.sampling.samplers import sampler_of
from evomerge.search.selection.front import CANDIDATES_PER_FINALIST, MOST_CANDIDATES
from evomerge.space import switches_of
from evomerge.workers import PreparedJob, next_stage

CandidateSeconds = Callable[[Mapping[str, int]], float]
"""Seconds that a candidate takes, from its number of items of each task."""

_COUNTED = 16
"""Generations that are counted one by one before others are left out of the count, all at once."""


@dataclass(frozen=True, kw_only=True)
class PhaseForecast:
    """Models that are scored in a phase.

    models: the least and the most. items: of each model on average, task by task. parts: in which
    a model gets its items; each is a merge of its own. at_once: models that are scored side by side
    before others come.
    """

    phase: Phase
    stage: str
    models: tuple[int, int]
    items: Mapping[str, int]
    parts: int = 1
    at_once: int = 1

    @property
    def total_items(self) -> tuple[int, int]:
        """Items of all models together, the least and the most."""
        each = sum(self.items.values())
        return self.models[0] * each, self.models[1] * each


@dataclass(frozen=True, kw_only=True)
class StageForecast:
    """The search of a stage.

    generations: None if only hours end it and nobody knows yet how long a candidate takes.
    ends: why it ends, in words; empty if generations is None.
    """

    name: str
    genes: tuple[str, ...]
    population: int
    generations: int | None
    ends: str


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A whole search: its stages, and its phases in their order."""

    stages: tuple[StageForecast, ...]
    phases: tuple[PhaseForecast, ...]

    @property
    def total_items(self) -> tuple[int, int]:
        """Items of all phases together, the least and the most."""
        totals = [phase.total_items for phase in self.phases]
        return sum(least for least, _ in totals), sum(most for _, most in totals)


def forecast(preparation: PreparedJob, seconds: CandidateSeconds | None = None) -> Forecast:
    """What the search of a prepared job will score.

    seconds: for budgets in hours; None if it is not known. Raises JobError for a sampler that
    cannot be used.
    """
    sampler_of(preparation.job.evaluation.draws)
    baselines = _baselines(preparation)
    stages: list[StageForecast] = []
    phases = [baselines]
    spent = _Spent()
    for stage in range(len(preparation.job.searches)):
        if stage:
            # A stage's start takes the place of its winner, which has the same structure.
            space = preparation.space
            preparation = next_stage(preparation, space.decode(space.start))
        searched, phase = _search(preparation, spent, seconds)
        stages.append(searched)
        phases += [*([phase] if phase else []), _validation(preparation, baselines.models)]
    phases.append(_test(preparation, phases[-1].models))
    return Forecast(stages=tuple(stages), phases=tuple(phases))


@dataclass
class _Spent:
    """What the generations so far have cost, as `Budget` counts it."""

    genomes: int = 0
    items: int = 0
    seconds: float = 0.0


def _search(
    preparation: PreparedJob, spent: _Spent, seconds: CandidateSeconds | None
) -> tuple[StageForecast, PhaseForecast | None]:
    """The generations of the present stage; no phase if their number is not known."""
    job = preparation.job
    budget = Budget(
        budget=job.budget_after(preparation.stage),
        each=preparation.items_each,
        population=choose_population(
            preparation.optimizer, switches_of(preparation.space), objectives=job.front_objectives
        ),
        elites=job.evaluation.elites,
    )
    limits = job.budget
    known = limits.candidates is not None or limits.items is not None or seconds is not None
    models, counts = 0, dict.fromkeys(job.search_tasks, 0)
    reason: str | None = None
    generation = 0
    while known:
        items = _items(preparation, first=generation == 0 and preparation.stage == 0)
        each = sum(items.values())
        if generation:  # a stage is never empty
            reason = budget.end_after(
                genomes=spent.genomes, used=spent.items, hours=spent.seconds / 3600, items=each
            )
        if reason is not None:
            break
        scored = budget.population + (budget.elites if generation else 0)
        lasts_s = scored * (0.0 if seconds is None else seconds(items))
        alike = 1
        if generation >= _COUNTED:
            alike = max(1, _alike(budget, spent, items=scored * each, lasts_s=lasts_s))
        generation += alike
        models += alike * scored
        spent.genomes += alike * budget.population
        spent.items += alike * scored * each
        spent.seconds += alike * lasts_s
        counts = {task: count + alike * scored * items[task] for task, count in counts.items()}
    searched = StageForecast(
        name=preparation.search.name,
        genes=tuple(gene.name for gene in preparation.space.genes),
        population=budget.population,
        generations=generation if known else None,
        ends=reason or "",
    )
    if not known:
        return searched, None
    items = {task: round(count / models) for task, count in counts.items()}
    return searched, PhaseForecast(
        phase="search",
        stage=searched.name,
        models=(models, models),
        items=items,
        parts=count_blocks(min(items.values()), races=job.races),
        at_once=budget.population + budget.elites,
    )


def _alike(budget: Budget, spent: _Spent, *, items: int, lasts_s: float) -> int:
    """Generations of this cost that surely fit into the budget: the last ones are left."""
    limits = budget.budget
    left = [
        (limit - used) / each
        for limit, used, each in (
            (limits.candidates, spent.genomes, budget.population),
            (limits.items, spent.items, items),
            (limits.hours and 3600 * limits.hours, spent.seconds, lasts_s),
        )
        if limit is not None and each > 0
    ]
    return int(min(left)) - _COUNTED


def _items(preparation: PreparedJob, *, first: bool) -> dict[str, int]:
    """Items of each candidate of a generation, on average; see `ItemDraws.counts`."""
    sizes = _sizes(preparation, "search")
    facts = preparation.job.evaluation.draw_facts
    if facts.every_item or (first and facts.asks_all_first):
        return sizes
    return share_evenly(preparation.items_each, sizes)


def _sizes(preparation: PreparedJob, split: Split) -> dict[str, int]:
    suite, job = preparation.suite, preparation.job
    tasks = job.all_tasks if split == "test" else job.search_tasks
    return {task: len(suite.items(task, split)) for task in tasks}


def _baselines(preparation: PreparedJob) -> PhaseForecast:
    """The space's start and the default merges; how many soups are tried depends on scores."""
    job = preparation.job
    baselines = Baselines(
        base=job.models.base,
        sources=job.models.sources,
        out_dtype=preparation.out_dtype,
        seed=job.optimizer.seed,
    )
    parents = parent_labels(job.models.sources)
    # If the parents differ and no soup is as good as a parent, most soups are tried.
    falling: dict[str, float | None] = {
        label: 1.0 - place / 100 for place, label in enumerate(parents)
    }
    counts = []
    for given in ({}, falling):
        scores: dict[str, float | None] = {}
        while stage := baselines.stage(scores):
            scores |= {baseline.label: given.get(baseline.label, 0.0) for baseline in stage}
        counts.append(len(scores) + 1)
    sizes = _sizes(preparation, "search")
    facts = job.evaluation.draw_facts
    items = sizes
    if not facts.asks_all_first:
        items = share_evenly(job.evaluation.items_for_baselines, sizes)
    return PhaseForecast(
        phase="baselines",
        stage="",
        models=(min(counts), max(counts)),
        items=items,
        at_once=max(counts),
    )


def _validation(preparation: PreparedJob, baselines: tuple[int, int]) -> PhaseForecast:
    """The starts that may be the best one, and the finalists of the search.

    See `starts_to_validate` and the finalists of `validation.py` and `front.py`.
    """
    job = preparation.job
    parents = len(job.models.sources)
    finalists = job.evaluation.finalists
    if job.mode == "pareto":
        candidates = min(finalists * CANDIDATES_PER_FINALIST, MOST_CANDIDATES)
        models = parents + 2 + min(1, candidates), baselines[1] + candidates
    elif preparation.space.exclusive:
        models = 1, 1 + 2 + finalists
    else:
        all_parents = any(constraint.of == "best_source" for constraint in job.constraints)
        starts = 2 + (parents if all_parents else 1)
        found = 2 + finalists + preparation.stage  # two means, and the winners of earlier stages
        models = min(starts, baselines[0]) + preparation.stage + 1, baselines[1] + found
    return PhaseForecast(
        phase="validation",
        stage=preparation.search.name,
        models=models,
        items=_sizes(preparation, "validation"),
        at_once=models[1],
    )


def _test(preparation: PreparedJob, validated: tuple[int, int]) -> PhaseForecast:
    """The winner, or the front, beside the base, the parents and the uniform soup."""
    parents = len(preparation.job.models.sources)
    if preparation.job.mode == "pareto":
        models = parents + 3, validated[1]
    else:
        beside = 1 + parents + 1 + preparation.stage
        models = beside, beside + 1 + 2 + int(preparation.space.exclusive)
    return PhaseForecast(
        phase="test",
        stage="",
        models=models,
        items=_sizes(preparation, "test"),
        at_once=models[1],
    )

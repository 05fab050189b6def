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

from evomerge.candidate import (
    Candidate,
    CandidateKey,
    ItemIds,
    Kind,
    Observer,
    ignore,
)
from evomerge.errors import WorkerError
from evomerge.evaluate.splits import draw
from evomerge.optimize import make_optimizer
from evomerge.optimize.baselines import BASE, Baseline, Baselines, parent_labels
from evomerge.preparation import Preparation
from evomerge.study import Parameter, Study, Trial
from evomerge.workers.pool import Pool

BASELINES = 0
"""The generation of the baselines; the optimiser's own count from 1."""

SPACE_START = "start of the space"
"""The space's own start, scored among the baselines: the search begins there if it is the best."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a search ended.

    means: the mean of the optimiser's distribution after each generation, each (n,) in [0, 1];
        empty for optimisers that have none.
    best: recorded genomes, the fittest of their generations first.
    reason: in words, for the user.
    """

    generations: int
    means: tuple[NDArray[np.float64], ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Search:
    """The parts of one search, and its two phases."""

    preparation: Preparation
    study: Study
    pool: Pool
    observe: Observer = ignore

    def run(self) -> Ending:
        """Score the baselines, then search until the budget or the optimiser says stop.

        Raises WorkerError when no baseline can be scored: then nothing else could be either.
        """
        job = self.preparation.job
        self._score_baselines()
        thresholds = self.thresholds()
        optimizer = make_optimizer(job.optimizer, start=self._start())
        means: list[NDArray[np.float64]] = []
        spent: list[Trial] = []
        generation = 0
        while (reason := self._end(spent, optimizer.population) or optimizer.stop) is None:
            generation += 1
            genomes = optimizer.ask()
            self.observe("asked", CandidateKey(generation, 0))
            trials = self.complete(self._candidates(generation, genomes))
            optimizer.tell(self.fitness(trials, thresholds))
            self.observe("told", CandidateKey(generation, 0))
            spent += trials
            if optimizer.mean is not None:
                means.append(optimizer.mean)
        return Ending(generations=generation, means=tuple(means), reason=reason)

    def _score_baselines(self) -> None:
        """The space's start and the usual defaults, in stages: a greedy soup needs scores."""
        job = self.preparation.job
        baselines = Baselines(
            base=job.models.base,
            sources=job.models.sources,
            out_dtype=self.preparation.out_dtype,
            seed=job.optimizer.seed,
        )
        items = self._draw(BASELINES, job.evaluation.items_for_baselines)
        space = self.preparation.space
        stage = (
            *baselines.stage({}),
            Baseline(label=SPACE_START, recipe=space.decode(space.start)),
        )
        scores: dict[str, float | None] = {}
        while stage:
            trials = self.complete(_baseline_candidates(stage, items, first=len(scores)))
            scores |= {trial.label: trial.score for trial in trials}
            stage = baselines.stage(scores)
            if all(score is None for score in scores.values()):
                raise WorkerError(f"no baseline could be scored: {trials[0].failure}")

    def complete(self, candidates: Sequence[Candidate]) -> list[Trial]:
        """The trials of all candidates, in order; those without a record are scored first."""
        missing = [one for one in candidates if self.study.find(one.key) is None]
        for candidate, outcome in self.pool.evaluate(missing, self.observe):
            self.study.record(
                candidate,
                outcome,
                score=self.preparation.objective.score_of(outcome),
                parameters=self._parameters(candidate.genome),
            )
            self.observe("recorded", candidate.key)
        return [self.study.trial(candidate.key) for candidate in candidates]

    def fitness(self, trials: Sequence[Trial], thresholds: Sequence[float]) -> NDArray[np.float64]:
        """Fitness of recorded trials, (n,); lower is better, failed ones are worse than all."""
        means = [trial.means for trial in trials]
        return self.preparation.objective.fitness(means, thresholds=thresholds)

    def thresholds(self) -> tuple[float, ...]:
        """What each constraint asks for, by the base's and the parents' scores as baselines."""
        baselines = {trial.label: trial for trial in self.study.trials_of("baseline")}
        parents = parent_labels(self.preparation.job.models.sources)
        base, *sources = (baselines[label].means for label in (BASE, *parents))
        return self.preparation.objective.thresholds(
            base=base or None, sources=[means for means in sources if means]
        )

    def fittest(self, kind: Kind) -> list[Trial]:
        """Recorded candidates of a kind, the fittest first; failed ones are left out.

        Each is measured on the items of its own generation, so the order is a noisy one.
        """
        trials = [trial for trial in self.study.trials_of(kind) if trial.score is not None]
        order = np.argsort(self.fitness(trials, self.thresholds()), kind="stable")
        return [trials[place] for place in order]

    def _start(self) -> NDArray[np.float64]:
        """The best baseline that the space can express, else the space's own start."""
        for trial in self.fittest("baseline"):
            genome = self.preparation.space.encode(trial.recipe)
            if genome is not None:
                return genome
        return self.preparation.space.start

    def _end(self, spent: Sequence[Trial], population: int) -> str | None:
        """Why the next generation is not begun, or None. Only what is recorded counts."""
        budget = self.preparation.job.budget
        if budget.candidates is not None and len(spent) + population > budget.candidates:
            return f"the budget of {budget.candidates} candidates is spent"
        items = self.preparation.job.evaluation.items_per_generation * population
        if budget.items is not None:
            used = sum(sum(trial.items.values()) for trial in spent)
            if used + items > budget.items:
                return f"the budget of {budget.items} scored items is spent"
        if budget.hours is not None:
            hours = sum(trial.cost.merge_s + trial.cost.evaluate_s for trial in spent) / 3600
            if hours >= budget.hours:
                return f"the budget of {budget.hours:g} worker hours is spent"
        return None

    def _candidates(self, generation: int, genomes: NDArray[np.float64]) -> list[Candidate]:
        """The genomes of a generation, all on the same fresh draw of items."""
        items = self._draw(generation, self.preparation.job.evaluation.items_per_generation)
        keys = [CandidateKey(generation, place) for place in range(len(genomes))]
        return [
            Candidate(
                key=key,
                kind="genome",
                label=str(key),
                recipe=self.preparation.space.decode(genome),
                items=items,
                genome=tuple(genome.tolist()),
            )
            for key, genome in zip(keys, genomes, strict=True)
        ]

    def _draw(self, generation: int, total: int) -> ItemIds:
        job, suite = self.preparation.job, self.preparation.suite
        pools = {task: suite.items(task, "search") for task in job.search_tasks}
        return draw(pools, total, seed=job.optimizer.seed, generation=generation)

    def _parameters(self, genome: tuple[float, ...] | None) -> dict[str, Parameter]:
        """Genes as people read them, for the record."""
        if genome is None:
            return {}
        return {
            gene.name: Parameter(
                value=min(max(gene.value(position), gene.low), gene.high),
                low=gene.low,
                high=gene.high,
                log=gene.scale == "log",
            )
            for gene, position in zip(self.preparation.space.genes, genome, strict=True)
        }


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

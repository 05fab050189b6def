"""Generation after generation of one search: how many items, which, and what they taught.

It does not know who proposes genomes, nor whom their fitness is told to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate import Candidate, CandidateKey
from evomerge.search.baselines import parent_labels
from evomerge.search.budget import Fidelity
from evomerge.search.ledger import Ledger
from evomerge.search.race import LEAST_OF_TASK, MOST_BLOCKS, Race, Runner, rank_fitness
from evomerge.search.sampling.draws import ItemDraws
from evomerge.search.sampling.elites import Elite, Elites, Measured
from evomerge.study import ESTIMATES, GENERATION_ITEMS, Trial


@dataclass(frozen=True, kw_only=True)
class ScoredGeneration:
    """Trials of the genomes in their order, those of the elites, and the fitness (n,) to tell."""

    trials: tuple[Trial, ...]
    elites: tuple[Trial, ...]
    fitness: NDArray[np.float64]


class Generations:
    """Scores the generations of one search, or of a stage of it.

    thresholds: what the constraints ask for.
    """

    def __init__(self, ledger: Ledger, thresholds: Sequence[float]) -> None:
        job, suite = ledger.preparation.job, ledger.preparation.suite
        objective = ledger.preparation.objective
        pools = {task: suite.items(task, "search") for task in job.search_tasks}
        metrics = [*(t.metric for t in objective.terms), *(c.metric for c in objective.constraints)]
        self._ledger = ledger
        self._evaluation = job.evaluation
        self._races = job.races
        self._ranks = job.mode == "single" and job.evaluation.draws_afresh
        self._grows = job.evaluation.growing
        self._seed = job.optimizer.seed
        self._thresholds = tuple(thresholds)
        known = [t for t in ledger.study.trials_of("baseline") if t.failure is None]
        parents = parent_labels(job.models.sources)
        self._draws = ItemDraws(
            pools,
            {
                task: tuple(dict.fromkeys(m.key for m in metrics if m.task == task))
                for task in pools
            },
            kind=job.evaluation.draws,
            seed=job.optimizer.seed,
            parents=[row for row, trial in enumerate(known) if trial.label in parents],
        )
        self._draws.learn([ledger.study.items_of(trial.key) for trial in known])
        self._each = ledger.preparation.items_each
        self._fidelity = Fidelity(self._each, least=len(pools), most=self._draws.size)
        self._elites = Elites()

    @property
    def elites(self) -> tuple[Elite, ...]:
        """The best candidates so far, as far as can be known, the best first.

        Empty where there are several scores, or where all generations have the same items, so that
        their scores can be compared as they are.
        """
        return self._elites.best(self._evaluation.finalists)

    def items(self, generation: int, *, affordable: float = math.inf) -> int:
        """Items that are planned for each candidate of a generation, at most `affordable`.

        Of a generation that was begun before it is the number it was begun with: the budget, which
        may have changed, is no part of a search's identity.
        """
        if self._draws.takes_all:
            return self._draws.size
        if not self._grows:
            return self._each
        begun = self._begun
        if str(generation) not in begun:
            return self._fidelity.items(affordable=affordable)
        return begun[str(generation)]

    @property
    def _begun(self) -> dict[str, int]:
        """How many items each generation was begun with, by its number."""
        return dict(self._ledger.study.noted(GENERATION_ITEMS) or {})

    def count(self, items: int) -> int:
        """How many items a candidate can really have: some tasks have fewer."""
        return sum(self._draws.counts(items).values())

    def score(
        self, generation: int, candidates: Sequence[Candidate], *, items: int
    ) -> ScoredGeneration:
        """Score the candidates, and the elites so far, on the generation's own draw.

        candidates: without items, places from 0. items: planned for each; see `items`.
        """
        if self._grows:
            begun = {**self._begun, str(generation): items}
            self._ledger.study.note(GENERATION_ITEMS, begun)
        kept = self._elites.best(self._evaluation.elites)
        genomes = [Runner(candidate=one, blocks=[]) for one in candidates]
        elites = [
            Runner(candidate=self._again(elite, generation, place), blocks=[])
            for place, elite in enumerate(kept, start=len(candidates))
        ]
        race = self._race(generation, items)
        findings = {task: list(said) for task, said in self._draws.findings.items()}
        if findings and findings != self._ledger.study.noted(ESTIMATES):
            self._ledger.study.note(ESTIMATES, findings)
        race.run(genomes, elites)
        trials = tuple(_trial(one) for one in genomes)
        failed = np.array([trial.failure is not None for trial in trials])
        reached = np.where(failed, 0, [len(one.blocks) for one in genomes])
        fitness = self._ledger.fitness(trials, self._thresholds)
        self._learn(race, genomes, list(zip(kept, elites, strict=True)))
        return ScoredGeneration(
            trials=trials,
            elites=tuple(_trial(one) for one in elites),
            fitness=rank_fitness(fitness, reached),
        )

    def _race(self, generation: int, items: int) -> Race:
        """With a race as many items again are drawn, to give to those that stay in it.

        There is none where a block would have too few items of some task to judge by, and none is
        drawn again where a task has no more.
        """
        counts = self._draws.counts(items)
        least = min(counts.values())
        blocks, fold = 1, 1
        if self._races and least >= LEAST_OF_TASK:
            blocks = min(MOST_BLOCKS, least // LEAST_OF_TASK)
            twice = {task: 2 * count for task, count in counts.items()}
            if self._evaluation.draws_afresh and self._draws.counts(2 * items) == twice:
                fold = 2
        return Race(
            self._ledger,
            self._draws.draw(generation, items * fold),
            of=blocks * fold,
            by_rights=blocks,
            thresholds=self._thresholds,
            key=(self._seed, generation),
        )

    def _again(self, elite: Elite, generation: int, place: int) -> Candidate:
        before = self._ledger.study.trial(elite.key)
        return Candidate(
            key=CandidateKey(generation, place),
            kind="elite",
            label=str(elite.key),
            recipe=before.recipe,
            items={},
            genome=before.genome,
            stage=before.stage,
        )

    def _learn(
        self, race: Race, genomes: Sequence[Runner], elites: Sequence[tuple[Elite, Runner]]
    ) -> None:
        """What the generation says of the items, of the noise, and of who is best."""
        scored = [one for one in genomes if _trial(one).failure is None]
        stayed = [(elite, one) for elite, one in elites if _trial(one).failure is None]
        self._draws.learn([one.tasks for one in scored])
        if not scored or not self._ranks:
            return
        if self._grows:
            first = race.resampled(scored, blocks=1, look=0)
            seen = sum(len(task.ids) for task in scored[0].blocks[0].tasks.values())
            self._fidelity.learn(first, items=seen)
        measured = self._measure(race, [*scored, *(one for _, one in stayed)])
        self._elites.learn({one.candidate.key: measured[one.candidate.key] for one in scored})
        for elite, one in stayed:
            self._elites.learn_again(elite.key, measured[one.candidate.key])

    def _measure(self, race: Race, runners: Sequence[Runner]) -> dict[CandidateKey, Measured]:
        """Fitness with its variance, each by all that the runner was scored on."""
        measured = {}
        for reached in sorted({len(one.blocks) for one in runners}):
            group = [one for one in runners if len(one.blocks) == reached]
            resampled = race.resampled(group, blocks=reached, look=0)
            fitness = self._ledger.fitness([_trial(one) for one in group], self._thresholds)
            for runner, value, variance in zip(group, fitness, resampled.var(axis=0), strict=True):
                measured[runner.candidate.key] = Measured(
                    fitness=float(value),
                    variance=float(variance),
                    items=_trial(runner).item_count,
                )
        return measured


def _trial(runner: Runner) -> Trial:
    assert runner.trial is not None, "the race is not over"
    return runner.trial

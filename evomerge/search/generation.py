"""The generations of one search: how many items, which items, and what is learnt from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate import Candidate, CandidateKey, leaves_of
from evomerge.search.baselines import parent_labels
from evomerge.search.budget import Fidelity
from evomerge.search.ledger import Ledger
from evomerge.search.race import LEAST_OF_TASK, Race, Runner, count_blocks, rank_fitness
from evomerge.search.sampling.draws import ItemDraws
from evomerge.search.sampling.elites import Elite, Elites, Measured
from evomerge.study import ESTIMATES, GENERATION_ITEMS, Trial


@dataclass(frozen=True, kw_only=True)
class ScoredGeneration:
    """The genomes' trials in their order, the elites' trials, and the fitness (n,) to tell."""

    trials: tuple[Trial, ...]
    elites: tuple[Trial, ...]
    fitness: NDArray[np.float64]


class Generations:
    """Scores the generations of one search, or of a stage of it.

    thresholds: one for each constraint.
    """

    def __init__(self, ledger: Ledger, thresholds: Sequence[float]) -> None:
        job, suite = ledger.preparation.job, ledger.preparation.suite
        objective = ledger.preparation.objective
        pools = {task: suite.items(task, "search") for task in job.search_tasks}
        metrics = leaves_of(objective.metrics)
        self._ledger = ledger
        self._evaluation = job.evaluation
        self._races = job.races
        self._ranks = job.mode == "single" and job.evaluation.draws_afresh
        self._grows = job.evaluation.growing
        self._seed = job.optimizer.seed
        self._thresholds = tuple(thresholds)
        baselines = [t for t in ledger.study.trials_of("baseline") if t.failure is None]
        parents = parent_labels(job.models.sources)
        self._draws = ItemDraws(
            pools,
            {
                task: tuple(dict.fromkeys(m.key for m in metrics if m.task == task))
                for task in pools
            },
            kind=job.evaluation.draws,
            seed=job.optimizer.seed,
            parents=[row for row, trial in enumerate(baselines) if trial.label in parents],
        )
        self._draws.learn([ledger.study.items_of(trial.key) for trial in baselines])
        self._each = ledger.preparation.items_each
        self._fidelity = Fidelity(self._each, least=len(pools), most=self._draws.size)
        self._elites = Elites()

    @property
    def elites(self) -> tuple[Elite, ...]:
        """The best candidates so far by the present estimates, the best first.

        Empty where there are several objectives. Empty too where all generations have the same
        items, because their scores can be compared as they are.
        """
        return self._elites.best(self._evaluation.finalists)

    def items(self, generation: int, *, affordable: float = math.inf) -> int:
        """Items that are planned for each candidate of a generation, at most `affordable`.

        A generation that began in an earlier run keeps the number that it began with, because the
        budget may have changed since then.
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
        """How many items a candidate really gets: some tasks have fewer than planned."""
        return sum(self._draws.counts(items).values())

    def score(
        self, generation: int, candidates: Sequence[Candidate], *, items: int
    ) -> ScoredGeneration:
        """Score the candidates, and the elites so far, on the generation's own draw.

        candidates: without items, with places from 0. items: planned for each; see `items`.
        """
        if self._grows:
            begun = {**self._begun, str(generation): items}
            self._ledger.study.note(GENERATION_ITEMS, begun)
        kept = self._elites.best(self._evaluation.elites)
        genomes = [Runner(candidate=candidate, blocks=[]) for candidate in candidates]
        elites = [
            Runner(candidate=self._again(elite, generation, place), blocks=[])
            for place, elite in enumerate(kept, start=len(candidates))
        ]
        race = self._race(generation, items)
        findings = {task: list(sentences) for task, sentences in self._draws.findings.items()}
        if findings and findings != self._ledger.study.noted(ESTIMATES):
            self._ledger.study.note(ESTIMATES, findings)
        race.run(genomes, elites)
        trials = tuple(_trial(runner) for runner in genomes)
        failed = np.array([trial.failure is not None for trial in trials])
        reached = np.where(failed, 0, [len(runner.blocks) for runner in genomes])
        fitness = self._ledger.fitness(trials, self._thresholds)
        self._learn(race, genomes, list(zip(kept, elites, strict=True)))
        return ScoredGeneration(
            trials=trials,
            elites=tuple(_trial(runner) for runner in elites),
            fitness=rank_fitness(fitness, reached),
        )

    def _race(self, generation: int, items: int) -> Race:
        """The race of a generation over its draw of items.

        A race draws twice the items, so that it can give more to the candidates that stay in it.
        It draws no more where a task has too few items for that. Nobody is stopped where a block
        would have too few items of some task.
        """
        counts = self._draws.counts(items)
        blocks, fold = count_blocks(min(counts.values()), races=self._races), 1
        if self._races and min(counts.values()) >= LEAST_OF_TASK:
            twice = {task: 2 * count for task, count in counts.items()}
            if self._evaluation.draws_afresh and self._draws.counts(2 * items) == twice:
                fold = 2
        return Race(
            self._ledger,
            self._draws.draw(generation, items * fold),
            of=blocks * fold,
            blocks_for_all=blocks,
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
        """Learn from the generation: about the items, the noise and the best candidates."""
        scored = [runner for runner in genomes if _trial(runner).failure is None]
        stayed = [(elite, runner) for elite, runner in elites if _trial(runner).failure is None]
        self._draws.learn([runner.tasks for runner in scored])
        if not scored or not self._ranks:
            return
        if self._grows:
            first = race.resampled(scored, blocks=1, look=0)
            seen = sum(len(task.ids) for task in scored[0].blocks[0].tasks.values())
            self._fidelity.learn(first, items=seen)
        measured = self._measure(race, [*scored, *(runner for _, runner in stayed)])
        self._elites.learn(
            {runner.candidate.key: measured[runner.candidate.key] for runner in scored}
        )
        for elite, runner in stayed:
            self._elites.learn_again(elite.key, measured[runner.candidate.key])

    def _measure(self, race: Race, runners: Sequence[Runner]) -> dict[CandidateKey, Measured]:
        """Fitness and its variance for each runner, from all items that it was scored on."""
        measured = {}
        for reached in sorted({len(runner.blocks) for runner in runners}):
            group = [runner for runner in runners if len(runner.blocks) == reached]
            resampled = race.resampled(group, blocks=reached, look=0)
            fitness = self._ledger.fitness([_trial(runner) for runner in group], self._thresholds)
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

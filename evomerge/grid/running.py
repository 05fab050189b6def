"""Running a grid: the models alone, the merges, the searches, and what they came to.

What has a record is taken as it is recorded, so a grid that was killed goes on when it is run again
over the same record. Nothing here knows files, devices or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from evomerge.candidate import Candidate, CandidateKey, ItemIds, Observer, Outcome, Scored
from evomerge.errors import WorkerError
from evomerge.evaluate.objective import Objective, means_of
from evomerge.grid.cells import Cell, cells_of
from evomerge.grid.concluding import conclude
from evomerge.grid.outcome import GridOutcome
from evomerge.grid.searching import WatchSearch, find, found_by
from evomerge.grid.specification import GridSpec
from evomerge.ledger import Ledger
from evomerge.optimize.baselines import model_labels, only
from evomerge.preparation import Preparation
from evomerge.run import OpenPool
from evomerge.study import Study, Trial

ALONE, MERGES = 0, 1
"""Generations of the base and the experts, and of the merges of them."""

WatchScoring = Callable[[Sequence[Candidate]], AbstractContextManager[Observer]]
"""What shows how these are scored."""


class HeldInMean(Objective):
    """The mean of the held-in metrics that a model was scored on; those of other experts are not.

    It is what the record shows as the score of a merge, before it is normalised.
    """

    def score_of(self, outcome: Outcome) -> float | None:
        """The mean, None where the model could not be scored."""
        if not isinstance(outcome, Scored):
            return None
        here = [term for term in self.terms if term.metric.task in outcome.tasks]
        return Objective(terms=here, aggregate="mean").score(means_of(outcome.tasks))


@dataclass(frozen=True, kw_only=True)
class GridRun:
    """A pinned grid over its record.

    facts_folder: for large facts about the sources. watch_scoring, watch_search: what shows it as
    it goes.
    """

    grid: GridSpec
    preparation: Preparation
    study: Study
    facts_folder: Path
    open_pool: OpenPool
    watch_scoring: WatchScoring
    watch_search: WatchSearch

    def run(self) -> GridOutcome:
        """Score what has no record and sum up. Raises InputError, WorkerError."""
        cells = cells_of(self.grid, out_dtype=self.preparation.out_dtype)
        alone = self.models_alone()
        self._complete(alone, all_needed=True)
        failed = [trial for one in alone if (trial := self._trial(one)).failure is not None]
        if failed:
            raise WorkerError(f"{failed[0].label} cannot be scored: {failed[0].failure}")
        self._complete(self.merges(cells))
        found = []
        for cell in cells:
            recipe = cell.recipe or found_by(self.grid, cell, self.study)
            recipe = recipe or find(
                self.grid,
                cell,
                self.study,
                open_pool=self.open_pool,
                watch=self.watch_search,
            )
            found.append(replace(cell, recipe=recipe))
        candidates = self.merges(found)
        self._complete(candidates)
        return conclude(
            self.grid,
            self.study,
            suite=self.preparation.suite,
            alone=alone,
            cells=list(zip(found, candidates, strict=True)),
        )

    def models_alone(self) -> list[Candidate]:
        """The base and the experts, on every task."""
        models, suite_tasks = self.grid.models, self.preparation.job.all_tasks
        labels = model_labels(models.sources)
        return [
            Candidate(
                key=CandidateKey(ALONE, place),
                kind="cell",
                label=label,
                recipe=only(model, out_dtype=self.preparation.out_dtype),
                items=self._items(suite_tasks),
            )
            for place, (label, model) in enumerate(
                zip(labels, (models.base, *models.sources), strict=True)
            )
        ]

    def merges(self, cells: Sequence[Cell]) -> list[Candidate]:
        """One candidate for each cell that has a recipe; cells of one recipe share theirs.

        A merge keeps the place it is recorded in, whatever the grid had then; others get the free
        places in order.
        """
        recorded = {
            (trial.recipe.to_yaml(), frozenset(trial.items)): trial
            for trial in self.study.trials_of("cell")
            if trial.key.generation == MERGES
        }
        taken = {trial.key.place for trial in recorded.values()}
        free = (place for place in count() if place not in taken)
        made: dict[tuple[str, frozenset[str]], Candidate] = {}
        candidates = []
        for cell in cells:
            if cell.recipe is None:
                continue
            items = self._items(self._tasks_of(cell))
            same = (cell.recipe.to_yaml(), frozenset(items))
            if same not in made:
                trial = recorded.get(same)
                made[same] = Candidate(
                    key=CandidateKey(MERGES, next(free)) if trial is None else trial.key,
                    kind="cell",
                    label=cell.label(self.grid.models.sources),
                    recipe=cell.recipe,
                    items=items,
                )
            candidates.append(made[same])
        return candidates

    def missing(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those without a record, or without their item results, each once."""
        unique = {one.key: one for one in candidates}
        return [one for key, one in unique.items() if self.study.lacks(key)]

    def _complete(self, candidates: Sequence[Candidate], *, all_needed: bool = False) -> None:
        missing = self.missing(candidates)
        if not missing:
            return
        preparation = replace(
            self.preparation,
            objective=HeldInMean(terms=self.preparation.objective.terms, aggregate="mean"),
        )
        with (
            self.watch_scoring(missing) as observe,
            self.open_pool(self.preparation, self.facts_folder) as pool,
        ):
            ledger = Ledger(preparation=preparation, study=self.study, pool=pool, observe=observe)
            ledger.complete(missing, all_needed=all_needed)

    def _trial(self, candidate: Candidate) -> Trial:
        return self.study.trial(candidate.key)

    def _tasks_of(self, cell: Cell) -> tuple[str, ...]:
        held_in = [held.task for held in self.grid.held_in_of(cell.experts)]
        return tuple(dict.fromkeys([*held_in, *self.preparation.job.report]))

    def _items(self, tasks: Sequence[str]) -> ItemIds:
        suite = self.preparation.suite
        if self.grid.split == "all":
            return {task: suite.scored(task) for task in tasks}
        return {task: suite.items(task, "test") for task in tasks}

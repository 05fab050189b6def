"""The run of a grid: the single models, the merges, the searches, and the outcome.

A model with a record is not scored again. So a grid that was killed goes on when it is run again
over the same record.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from evomerge.errors import WorkerError
from evomerge.evaluate import (
    Candidate,
    CandidateKey,
    Evaluation,
    ItemIds,
    Objective,
    Observer,
    Scored,
    means_of,
)
from evomerge.grid.cells import Cell, cells_of, label_of
from evomerge.grid.outcome import GridOutcome, conclude
from evomerge.grid.specification import GridSpec
from evomerge.job import JobSpec
from evomerge.recipe import Recipe, read_recipe
from evomerge.search import (
    Ledger,
    Observe,
    OpenPool,
    Selection,
    model_labels,
    only,
    parent_labels,
    run_study,
)
from evomerge.study import SEARCHES, Study, Trial, create_study, resume_study
from evomerge.workers import PreparedJob, fingerprints_of, pin, prepare

# A search of a grid is an ordinary search over one subset, in a run directory of its own.
#
# It can be reported and exported like any other. It uses the search and validation items of its
# experts' tasks. The grid takes its winner as one more recipe and scores it like the rest.


_FOLDER = "searches"

WatchSearch = Callable[[Study], AbstractContextManager[Observe]]
"""Shows a search while it runs."""


def search_name(grid: GridSpec, cell: Cell) -> str:
    """Name of a cell's run directory: method, experts and seed, safe for a file system."""
    names = parent_labels(grid.models.sources)
    parts = [label_of(cell.method), *(names[place] for place in cell.experts), f"seed{cell.seed}"]
    plain = "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part) for part in parts)
    # The hash keeps names apart that differ only in replaced letters.
    return f"{plain}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:6]}"


def job_of(grid: GridSpec, cell: Cell) -> JobSpec:
    """The search of a cell as a job."""
    assert cell.seed is not None
    return pin(grid.search_job(cell.method, cell.experts, seed=cell.seed))


def found_by(grid: GridSpec, cell: Cell, study: Study) -> Recipe | None:
    """The recipe that a cell's search found with its present budget; None before it has ended."""
    noted = (study.noted(SEARCHES) or {}).get(search_name(grid, cell))
    if noted is None or noted["budget"] != _budget_of(cell):
        return None
    return read_recipe(noted["recipe"], where=f"the winner of {search_name(grid, cell)}")


def find(
    grid: GridSpec, cell: Cell, study: Study, *, open_pool: OpenPool, watch: WatchSearch
) -> Recipe:
    """Run or resume the search of a cell, and keep its recipe in the grid's record.

    Raises InputError, WorkerError.
    """
    name = search_name(grid, cell)
    run_dir = study.run_dir / _FOLDER / name
    preparation = prepare(job_of(grid, cell))
    now = fingerprints_of(preparation)
    with _open(run_dir, preparation.job, now) as search:
        search.job = preparation.job
        with watch(search) as observe:
            _, selection = run_study(
                search,
                preparation,
                observe=observe,
                cache_dir=study.run_dir,
                open_pool=open_pool,
            )
    assert isinstance(selection, Selection), "a grid's searches have one objective"
    recipe = selection.recipe
    kept = {"budget": _budget_of(cell), "winner": selection.winner, "recipe": recipe.to_yaml()}
    study.note(SEARCHES, {**(study.noted(SEARCHES) or {}), name: kept})
    return recipe


def _open(run_dir: Path, job: JobSpec, facts: Mapping[str, Any]) -> Study:
    if (run_dir / "job.yaml").exists():
        return resume_study(run_dir)
    return create_study(run_dir, job, facts=facts)


def _budget_of(cell: Cell) -> dict[str, float | None]:
    assert cell.method.budget is not None
    return cell.method.budget.model_dump()


ALONE, MERGES = 0, 1
"""Generations of the single models (base and experts) and of the merges."""

WatchScoring = Callable[[Sequence[Candidate]], AbstractContextManager[Observer]]
"""Shows the progress while candidates are scored."""


class HeldInMean(Objective):
    """The mean of the held-in metrics that a model was scored on, without those of other experts.

    The record shows it as the score of a merge; it is not normalised.
    """

    def score_of(self, outcome: Evaluation) -> float | None:
        """The mean; None where the model could not be scored."""
        if not isinstance(outcome, Scored):
            return None
        terms = [term for term in self.terms if term.metric.task in outcome.tasks]
        return Objective(terms=terms, aggregate="mean").score(means_of(outcome.tasks))


@dataclass(frozen=True, kw_only=True)
class GridRun:
    """A pinned grid over its record.

    cache_folder: for large arrays of the tensor cache. watch_scoring, watch_search: show its
    progress.
    """

    grid: GridSpec
    preparation: PreparedJob
    study: Study
    cache_folder: Path
    open_pool: OpenPool
    watch_scoring: WatchScoring
    watch_search: WatchSearch

    def run(self) -> GridOutcome:
        """Score all models without a record and sum up. Raises InputError, WorkerError."""
        cells = cells_of(self.grid, out_dtype=self.preparation.out_dtype)
        alone = self.models_alone()
        self._complete(alone, all_needed=True)
        failed = [trial for model in alone if (trial := self._trial(model)).failure is not None]
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
        """One candidate for each cell that has a recipe; cells with the same recipe share one.

        A recorded merge keeps its place, even if the grid has changed since. Other merges get the
        free places in order.
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
        """Candidates without a record or without their item results, each once."""
        unique = {candidate.key: candidate for candidate in candidates}
        return [candidate for key, candidate in unique.items() if self.study.lacks(key)]

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
            self.open_pool(self.preparation, self.cache_folder) as pool,
        ):
            ledger = Ledger(preparation=preparation, study=self.study, pool=pool, observe=observe)
            ledger.complete(missing, all_needed=all_needed)

    def _trial(self, candidate: Candidate) -> Trial:
        return self.study.trial(candidate.key)

    def _tasks_of(self, cell: Cell) -> tuple[str, ...]:
        held_in = [task.task for task in self.grid.held_in_of(cell.experts)]
        return tuple(dict.fromkeys([*held_in, *self.preparation.job.report]))

    def _items(self, tasks: Sequence[str]) -> ItemIds:
        suite = self.preparation.suite
        if self.grid.split == "all":
            return {task: suite.scored(task) for task in tasks}
        return {task: suite.items(task, "test") for task in tasks}

"""How fast candidates are scored, and an estimate of the time that a search still takes.

The estimate uses the budget and the cost of the candidates so far. It cannot foresee that an
optimiser stops early, and it guesses how many models the final selection will score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evomerge.job import JobSpec
from evomerge.report.tally import remaining_worker_s, searched, spending_of
from evomerge.study import Trial

_MEANS = 2
"""Finalists that are means of the distribution (see selection.validation)."""

_BESIDE = 3
"""Merges on the test items besides base, parents and winner: the uniform soup, the best starts."""

_FRONT = 4
"""How many times more finalists a front has (see `search/selection/front.py`)."""


@dataclass(frozen=True, kw_only=True)
class FinalItems:
    """Items that a model is scored on in the final selection, over all tasks."""

    validation: int
    test: int


class Pace:
    """The pace of this process in the current phase.

    clock: returns seconds that only grow. Costs are worker seconds. The number of clock seconds per
    worker second accounts for parallel workers and for the time between candidates.
    """

    def __init__(self, job: JobSpec, clock: Callable[[], float]) -> None:
        self._job = job
        self._clock = clock
        self._began_s = clock()
        self._scored: list[Trial] = []
        self._clock_share = 1.0
        """Clock seconds per worker second in the last phase."""

    def begin_phase(self) -> None:
        """Start again: another phase may keep fewer or more workers busy."""
        self._clock_share = self._share()
        self._began_s = self._clock()
        self._scored = []

    @property
    def scored(self) -> bool:
        """Whether this process scored anything in the phase."""
        return bool(self._scored)

    def take(self, trial: Trial) -> None:
        """Count a candidate that this process has just scored."""
        if not self._scored:
            # The first result shows when scoring began; the loading before it does not count.
            spent_s = trial.cost.merge_s + trial.cost.evaluate_s
            self._began_s = self._clock() - spent_s
        self._scored.append(trial)

    def left_s(self, trials: Sequence[Trial]) -> float | None:
        """Seconds until the budget is used up, by the trials so far; None before the first."""
        genomes = searched(trials)
        likely = [trial for trial in genomes or trials if trial.failure is None]
        if not likely:
            return None
        cost = spending_of(likely)
        candidates = max(1, cost.candidates)
        items = cost.items / candidates
        merge_s = cost.merge_s / candidates
        evaluate_s = (cost.worker_s - cost.merge_s) / candidates
        if not genomes:
            share = self._job.items_each(genes=0) / max(1.0, items)  # or half of it
            items, evaluate_s = items * share, evaluate_s * share
        left_s = remaining_worker_s(
            self._job.budget,
            spending_of(genomes),
            candidate_s=merge_s + evaluate_s,
            candidate_items=items,
        )
        passed_s = self._clock() - self._began_s
        done_s = spending_of(self._scored).worker_s
        return left_s * passed_s / done_s if done_s > 0 else left_s

    def models_s(self, trials: Sequence[Trial], models: int, items: int) -> float | None:
        """Seconds to score `models` models on `items` items each; None before any is scored.

        The estimate uses this phase's finalists if there are any, else earlier finalists, else the
        baselines: an item costs more if a candidate has few of them.
        """
        for known in (
            self._scored,
            [trial for trial in trials if trial.kind == "finalist"],
            [trial for trial in trials if trial.kind == "baseline"],
            trials,
        ):
            likely = [trial for trial in known if trial.failure is None and trial.cost.items]
            if likely:
                break
        else:
            return None
        cost = spending_of(likely)
        item_s = (cost.worker_s - cost.merge_s) / cost.items
        model_s = cost.merge_s / cost.candidates if cost.candidates else 0.0
        return models * (model_s + item_s * items) * self._share()

    def validation_s(self, trials: Sequence[Trial], items: FinalItems) -> float | None:
        """Seconds that one final selection takes on its validation items, before it is planned."""
        return self.models_s(trials, self._validated(trials), items.validation)

    def test_s(self, trials: Sequence[Trial], items: FinalItems) -> float | None:
        """Seconds that one final selection takes on its test items, before it is planned."""
        winners = self._validated(trials) // 2 if self._job.mode == "pareto" else 1
        beside = 1 + len(self._job.models.sources) + _BESIDE
        return self.models_s(trials, winners + beside, items.test)

    def _validated(self, trials: Sequence[Trial]) -> int:
        """How many models are likely to be scored on the validation items."""
        starts = sum(trial.kind == "baseline" for trial in trials)
        finalists = self._job.evaluation.finalists
        found = finalists * _FRONT if self._job.mode == "pareto" else finalists + _MEANS
        return found + (starts + 1) // 2

    def _share(self) -> float:
        """Clock seconds per worker second: below 1 with several workers."""
        done_s = spending_of(self._scored).worker_s
        return (self._clock() - self._began_s) / done_s if done_s > 0 else self._clock_share

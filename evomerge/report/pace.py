"""How fast candidates are scored, and so how long the rest of the search may take.

It guesses from what candidates cost so far. It knows the budget, not the optimiser's own reasons to
stop, and not what the final selection takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evomerge.job import JobSpec
from evomerge.report.tally import remaining_worker_s, searched, spending_of
from evomerge.study import Trial


class Pace:
    """The pace of this process in the current phase.

    clock: seconds that only grow. Costs are worker seconds; how many of them pass in a second of
    the clock accounts for parallel workers and for the time between candidates.
    """

    def __init__(self, job: JobSpec, clock: Callable[[], float]) -> None:
        self._job = job
        self._clock = clock
        self.begin_phase()

    def begin_phase(self) -> None:
        """Start anew: another phase may keep fewer or more workers busy."""
        self._began_s = self._clock()
        self._scored: list[Trial] = []

    @property
    def scored(self) -> bool:
        """Whether this process scored anything in the phase."""
        return bool(self._scored)

    def take(self, trial: Trial) -> None:
        """Count a candidate that this process has just scored."""
        if not self._scored:
            # The first result says when work began, whatever had to be loaded before.
            spent_s = trial.cost.merge_s + trial.cost.evaluate_s
            self._began_s = self._clock() - spent_s
        self._scored.append(trial)

    def left_s(self, trials: Sequence[Trial]) -> float | None:
        """Seconds until the budget is used up, from every trial so far; None before the first."""
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

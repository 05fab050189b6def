"""The finalists on validation items: which models they are, and which is the best there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import WorkerError
from evomerge.evaluate import Role, simultaneous_differences
from evomerge.search.ledger import Ledger
from evomerge.search.loop import Ending
from evomerge.search.results.claim import START_ROLES, LeftOut
from evomerge.search.selection.finalists import (
    VALIDATION,
    Entrant,
    entrant_of,
    items_of,
    once_each,
    pass_over,
    score_entrants,
    stage_winners,
    starts_to_validate,
    why_unscored,
)
from evomerge.study import Trial

AVERAGE = "average of the second half's means"
"""Label of a finalist: the average of the distribution's means in the second half of a search."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The finalists that could be scored, the winner first, and why others could not.

    feasible: how many finalists keep every constraint there; they come first.
    """

    ranked: tuple[tuple[Entrant, Trial], ...]
    feasible: int
    left_out: tuple[LeftOut, ...]

    @property
    def candidates(self) -> tuple[tuple[Entrant, Trial], ...]:
        """The finalists that the search found, the best first."""
        return tuple(pair for pair in self.ranked if pair[0].role not in START_ROLES)

    def best_start(self, *roles: Role) -> tuple[Entrant, Trial] | None:
        """The best start, or the best start with one of these roles."""
        wanted = roles or START_ROLES
        return next((pair for pair in self.ranked if pair[0].role in wanted), None)


def validate(ledger: Ledger, ending: Ending) -> Validation:
    """Score the finalists on the validation items; those that keep the constraints rank first.

    Raises WorkerError when none can be scored.
    """
    entrants = _finalists(ledger, ending)
    scored, left_out = [], []
    for entrant, trial in score_entrants(ledger, ending, entrants, VALIDATION):
        reason = why_unscored(trial)
        if reason is None:
            scored.append((entrant, trial))
        else:
            left_out.append(
                LeftOut(label=entrant.label, role=entrant.role, split="validation", reason=reason)
            )
    if not scored:
        pass_over(ledger, ending, VALIDATION, len(entrants))
        raise WorkerError(
            f"no finalist could be scored on the validation items: {left_out[0].reason}; resume "
            "tries them again"
        )
    thresholds = thresholds_among(ledger, scored)
    fitness = ledger.fitness([trial for _, trial in scored], thresholds)
    shortfalls = ledger.preparation.objective.on("validation").shortfalls
    broken = np.array([sum(shortfalls(trial.means, thresholds)) > 0.0 for _, trial in scored])
    order = np.lexsort((fitness, broken))  # by `broken`, then by fitness; equals stay in order
    ranked = _prefer_average(ledger, [scored[place] for place in order], int((~broken).sum()))
    return Validation(
        ranked=tuple(ranked),
        feasible=int((~broken).sum()),
        left_out=tuple(left_out),
    )


def _prefer_average(
    ledger: Ledger, ranked: Sequence[tuple[Entrant, Trial]], feasible: int
) -> list[tuple[Entrant, Trial]]:
    """Put the average of the means first, unless another is surely better or a start is no worse.

    The average comes from many candidates and all their items; the best of several on validation
    items is partly the luckiest. Surely better: the paired 95% interval of the difference leaves
    out 0.
    """
    places = [place for place, (entrant, _) in enumerate(ranked) if entrant.label == AVERAGE]
    before = ranked[: places[0]] if places else ()
    starts = any(entrant.role in START_ROLES for entrant, _ in before)
    if not before or starts or len(before) >= feasible > 0:
        return list(ranked)
    average = ranked[len(before)]
    [difference] = simultaneous_differences(
        ledger.objective_of(average[1].key),
        [(items_of(ledger, ranked[0][1]), items_of(ledger, average[1]))],
        seed=ledger.preparation.job.optimizer.seed,
    )
    if difference.settled:
        return list(ranked)
    return [average, *before, *ranked[len(before) + 1 :]]


def _finalists(ledger: Ledger, ending: Ending) -> list[Entrant]:
    """The finalists, the simplest first, because the first of equals wins.

    Starts come before candidates, because an equal score is no gain. Means come next, because the
    average of many candidates is a safer choice than one of them.
    """
    space = ledger.preparation.space
    entrants = starts_to_validate(ledger)
    if not space.exclusive:
        entrants += stage_winners(ledger)
    means: dict[str, NDArray[np.float64]] = {}
    if ending.means:
        half = ending.means[len(ending.means) // 2 :]
        means[AVERAGE] = np.mean(half, axis=0)
        means["last mean"] = ending.means[-1]
    for label, genome in means.items():
        recipe, genes = space.decode(genome), tuple(genome.tolist())
        entrants.append(Entrant(label=label, role="finalist", recipe=recipe, genome=genes))
    entrants += [entrant_of(trial, "finalist") for trial in _best_candidates(ledger, ending)]
    return once_each(entrants)


def _best_candidates(ledger: Ledger, ending: Ending) -> list[Trial]:
    """The best candidates: the elites where each generation had items of its own.

    Where all had the same items, scores can be compared as they are. Candidates that were stopped
    early are left out: they have fewer items, and their scores were too low.
    """
    if ending.elites:
        return [ledger.study.trial(key) for key in ending.elites]
    genomes = ledger.fittest("genome")
    within = [t for t in genomes if ending.first < t.key.generation <= ending.last]
    most: dict[int, int] = {}
    for trial in within:
        generation = trial.key.generation
        most[generation] = max(most.get(generation, 0), trial.item_count)
    whole = [t for t in within if t.item_count == most[t.key.generation]]
    return whole[: ledger.preparation.job.evaluation.finalists]


def thresholds_among(ledger: Ledger, scored: Sequence[tuple[Entrant, Trial]]) -> tuple[float, ...]:
    """The threshold of each constraint, from the scores of the base and the parents in `scored`.

    Where a constraint compares with a model that is not in `scored`, thresholds are from the search
    items.
    """
    if not scored:
        return ledger.thresholds()
    objective = ledger.objective_of(scored[0][1].key)
    base = next((trial.means for entrant, trial in scored if entrant.role == "base"), None)
    parents = [trial.means for entrant, trial in scored if entrant.role == "parent"]
    compared = {constraint.of for constraint in objective.constraints}
    if ("base" in compared and base is None) or ("best_source" in compared and not parents):
        return ledger.thresholds()
    return objective.thresholds(base=base, sources=parents)

"""From the end of a search in `mode: pareto` to its front: validation, then the test items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import WorkerError
from evomerge.evaluate import (
    MOST_FINALISTS,
    Metric,
    ScoreSummary,
    Split,
    TaskItems,
    box_of,
    front_gain,
    front_order,
    fronts,
    summarise,
)
from evomerge.search.baselines import UNIFORM_SOUP, model_labels
from evomerge.search.ledger import Ledger
from evomerge.search.loop import Ending
from evomerge.search.results.claim import START_ROLES, LeftOut
from evomerge.search.results.front import Axis, Front, Point
from evomerge.search.results.selection import ConstraintCheck
from evomerge.search.selection.finalists import (
    TEST,
    VALIDATION,
    Entrant,
    entrant_of,
    items_of,
    once_each,
    pass_over,
    roles_of,
    score_entrants,
    tested_before,
    why_unscored,
)
from evomerge.search.selection.validation import thresholds_among
from evomerge.study import SELECTION, Trial

Scored = Sequence[tuple[Entrant, Trial]]

CANDIDATES_PER_FINALIST = 4
"""A front needs more candidates than the choice of one winner: 12 by default."""

MOST_CANDIDATES = MOST_FINALISTS - 100
"""Most candidates for a front; the other places are for the starts."""


def select_front(ledger: Ledger, ending: Ending) -> Front:
    """Find the front on the validation items, score it on the test items, record the outcome.

    Models that cannot be scored are left out, and the outcome names them. Raises WorkerError when
    no model is left to deliver or to compare with.
    """
    starts = _starts(ledger)
    entrants = once_each([*starts, *_candidates(ledger, ending)])
    scored, left_out = _score(ledger, ending, entrants, VALIDATION)
    if not scored:
        pass_over(ledger, ending, VALIDATION, len(entrants))
        raise WorkerError(
            f"no model could be scored on the validation items: {left_out[0].reason}; resume tries "
            "them again"
        )
    thresholds = thresholds_among(ledger, scored)
    on_front, feasible = _non_dominated(ledger, scored, thresholds)
    beside = [
        entrant for entrant in starts if entrant.role != "baseline" or entrant.label == UNIFORM_SOUP
    ]
    wanted = [entrant for entrant, _ in on_front]
    tested, out = _score(ledger, ending, once_each([*wanted, *beside]), TEST)
    front = _conclude(
        ledger,
        validated=scored,
        on_front=on_front,
        tested=tested,
        feasible=feasible,
        left_out=(*left_out, *out),
        last=ending.last,
    )
    if front is None:
        pass_over(ledger, ending, TEST, len(once_each([*wanted, *beside])))
        raise WorkerError(
            f"no point of the front, or no model to compare it with, could be scored on the test "
            f"items: {out[0].reason}; resume tries them again"
        )
    ledger.study.note(SELECTION, front.to_json())
    return front


def _starts(ledger: Ledger) -> list[Entrant]:
    """Base, parents and uniform soup, and the untuned merges that no other dominates.

    All of them were scored on the same search items.
    """
    roles = roles_of(ledger)
    trials = [trial for trial in ledger.study.trials_of("baseline") if trial.score is not None]
    front = fronts(ledger.preparation.objective.losses([trial.means for trial in trials]))
    always = {UNIFORM_SOUP, *model_labels(ledger.preparation.job.models.sources)}
    return [
        entrant_of(trial, roles[trial.label])
        for trial, rank in zip(trials, front, strict=True)
        if rank == 0 or trial.label in always
    ]


def _candidates(ledger: Ledger, ending: Ending) -> list[Entrant]:
    """Candidates that may be on the front, by front and then by how far their neighbours are.

    Each was scored on the items of its own generation, so scores are noisy. A candidate is left out
    only where another one is better on every axis by more than the noise of their difference.
    """
    job, objective = ledger.preparation.job, ledger.preparation.objective
    trials = [
        trial
        for trial in ledger.study.trials_of("genome")
        if trial.score is not None and ending.first < trial.key.generation <= ending.last
    ]
    if not trials:
        return []
    means = [trial.means for trial in trials]
    losses = objective.losses(means)
    violation = objective.violations(means, thresholds=ledger.thresholds())
    order = front_order(losses, violation)
    most = min(job.evaluation.finalists * CANDIDATES_PER_FINALIST, MOST_CANDIDATES)
    noise = _noise(ledger, [trials[place] for place in order[:most]])
    clearly = ((losses[:, None] - losses[None]) > noise).all(axis=-1)
    clearly &= violation[None, :] <= violation[:, None]
    kept = [place for place in order if not clearly[place].any()]
    return [entrant_of(trials[place], "finalist") for place in kept[:most]]


def _noise(ledger: Ledger, trials: Sequence[Trial]) -> NDArray[np.float64]:
    """Standard error of the difference of two candidates on each axis, (axes,)."""
    axes = ledger.preparation.objective.axes
    squares = np.zeros((len(trials), len(axes)))
    for row, trial in enumerate(trials):
        items = ledger.study.items_of(trial.key)
        for column, metric in enumerate(axes):
            squares[row, column] = _error(metric, items)
    return np.sqrt(2.0 * squares.mean(axis=0)) if len(trials) else np.zeros(len(axes))


def _error(metric: Metric, items: Mapping[str, TaskItems]) -> float:
    """The squared standard error of a model's score, from its items; tasks are independent."""
    shares = [part.weight for part in metric.parts] or [1]
    total = 0.0
    for leaf, share in zip(metric.leaves, shares, strict=True):
        values = np.array(items[leaf.task].metrics[leaf.key])
        error = values.var(ddof=min(1, len(values) - 1)) / len(values)
        total += (share / sum(shares)) ** 2 * float(error)
    return total


def _score(
    ledger: Ledger, ending: Ending, entrants: Sequence[Entrant], generation: int
) -> tuple[list[tuple[Entrant, Trial]], list[LeftOut]]:
    """The entrants that could be scored on a split, and why the others could not."""
    split: Split = "validation" if generation == VALIDATION else "test"
    scored, left_out = [], []
    for entrant, trial in score_entrants(ledger, ending, entrants, generation):
        reason = why_unscored(trial)
        if reason is None:
            scored.append((entrant, trial))
        else:
            left_out.append(
                LeftOut(label=entrant.label, role=entrant.role, split=split, reason=reason)
            )
    return scored, left_out


def _non_dominated(
    ledger: Ledger, scored: Scored, thresholds: Sequence[float]
) -> tuple[list[tuple[Entrant, Trial]], bool]:
    """The front of the validation items, by its first axis, and whether any keeps the constraints.

    Of entrants with equal scores only the first counts, which is the simplest. Where a space
    excludes its starts, for example in pruning, only models that it can express are on the front.
    """
    objective, space = ledger.preparation.objective.on("validation"), ledger.preparation.space
    wanted = [
        pair for pair in scored if not space.exclusive or space.encode(pair[0].recipe) is not None
    ] or list(scored)
    means = [trial.means for _, trial in wanted]
    losses = objective.losses(means)
    violation = objective.violations(means, thresholds=thresholds)
    rank = fronts(losses, violation)
    _, first = np.unique(np.column_stack([losses, violation]), axis=0, return_index=True)
    on_front = [place for place in sorted(first) if rank[place] == 0]
    on_front.sort(key=lambda place: -losses[place, 0])
    return [wanted[place] for place in on_front], bool((violation <= 0.0).any())


def _conclude(
    ledger: Ledger,
    *,
    validated: Scored,
    on_front: Scored,
    tested: Scored,
    feasible: bool,
    left_out: tuple[LeftOut, ...],
    last: int,
) -> Front | None:
    """The outcome by the test items; None where no point or nothing to compare with was scored."""
    objective = ledger.preparation.objective.on("test")
    seed = ledger.preparation.job.optimizer.seed
    by_label = {entrant.label: (entrant, trial) for entrant, trial in tested}
    members = [by_label[e.label] for e, _ in on_front if e.label in by_label]
    starts = [pair for pair in tested if pair[0].role in START_ROLES]
    parents = [pair for pair in starts if pair[0].role == "parent"] or starts
    if not members or not parents:
        return None
    scores = {entrant.label: items_of(ledger, trial) for entrant, trial in tested}
    box = box_of(objective.losses([trial.means for _, trial in parents]))
    member_scores = [scores[entrant.label] for entrant, _ in members]
    over_parents, over_starts = (
        front_gain(
            objective, member_scores, [scores[e.label] for e, _ in others], box=box, seed=seed
        )
        for others in (parents, starts)
    )
    names = np.array([entrant.label for entrant, _ in parents])
    thresholds = thresholds_among(ledger, tested)
    known = {entrant.label: trial for entrant, trial in validated}
    points = tuple(
        Point(
            label=entrant.label,
            role=entrant.role,
            recipe=entrant.recipe,
            genome=entrant.genome,
            test_key=trial.key,
            validation=_summary(ledger, entrant, known[entrant.label]),
            test=_summary(ledger, entrant, trial),
            constraints=_checks(ledger, trial, thresholds),
            dominates=tuple(names[over_parents.dominates[row]].tolist()),
            surely=tuple(names[over_parents.surely_dominates[row]].tolist()),
        )
        for row, (entrant, trial) in enumerate(members)
    )
    return Front(
        axes=tuple(
            Axis(task=m.task, metric=m.key, higher_is_better=m.higher_is_better)
            for m in objective.axes
        ),
        points=points,
        rivals=tuple(_summary(ledger, entrant, trial) for entrant, trial in starts),
        validated=tuple(_summary(ledger, entrant, trial) for entrant, trial in validated),
        volume=over_parents.volume,
        gain=over_parents.gain,
        over_starts=over_starts.gain,
        feasible=feasible,
        left_out=left_out,
        items={"validation": dict(validated[0][1].items), "test": dict(tested[0][1].items)},
        tested_before=tested_before(ledger.study.trials, last),
    )


def _summary(ledger: Ledger, entrant: Entrant, trial: Trial) -> ScoreSummary:
    items: Mapping[str, TaskItems] = items_of(ledger, trial)
    preparation = ledger.preparation
    return summarise(
        entrant.label,
        entrant.role,
        items,
        objective=ledger.objective_of(trial.key),
        seed=preparation.job.optimizer.seed,
    )


def _checks(
    ledger: Ledger, trial: Trial, thresholds: Sequence[float]
) -> tuple[ConstraintCheck, ...]:
    return tuple(
        ConstraintCheck(
            task=constraint.metric.task,
            metric=constraint.metric.key,
            score=constraint.metric.mean(trial.means),
            wanted=threshold,
        )
        for constraint, threshold in zip(
            ledger.objective_of(trial.key).constraints, thresholds, strict=True
        )
    )

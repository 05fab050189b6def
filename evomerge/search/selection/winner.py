"""From the end of a search to its winner: validation, then the test items."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evomerge.errors import WorkerError
from evomerge.evaluate import leaves_of, means_of, simultaneous_differences, summarise
from evomerge.search.baselines import UNIFORM_SOUP
from evomerge.search.ledger import Ledger
from evomerge.search.loop import Ending
from evomerge.search.results.claim import START_ROLES, Comparison, LeftOut
from evomerge.search.results.selection import ConstraintCheck, Selection
from evomerge.search.selection.finalists import (
    TEST,
    Entrant,
    items_of,
    pass_over,
    rivals,
    score_entrants,
    tested_before,
    why_unscored,
)
from evomerge.search.selection.validation import Validation, thresholds_among, validate
from evomerge.study import SELECTION, Trial


@dataclass(frozen=True, kw_only=True)
class _Tested:
    """The winner and the models that it is compared with on the test items.

    origin: the winner as it was on validation. others: those models, at least one, in the order of
    the report.
    """

    origin: Entrant
    winner: tuple[Entrant, Trial]
    others: tuple[tuple[Entrant, Trial], ...]
    feasible: bool
    left_out: tuple[LeftOut, ...]


def select_winner(ledger: Ledger, ending: Ending) -> Selection:
    """Score the finalists on validation, the winner and its rivals on test, and record the outcome.

    Models that cannot be scored are left out, and the outcome names them. Raises WorkerError when
    no model is left to win or to compare with.
    """
    validation = validate(ledger, ending)
    tested = _test(ledger, ending, validation)
    selection = _conclude(ledger, validation, tested, last=ending.last)
    ledger.study.note(SELECTION, selection.to_json())
    return selection


def winner_of_stage(ledger: Ledger, ending: Ending) -> Entrant:
    """The model that the next stage begins from: the best finalist on the validation items.

    Raises WorkerError when none can be scored.
    """
    return validate(ledger, ending).ranked[0][0]


def _test(ledger: Ledger, ending: Ending, validation: Validation) -> _Tested:
    """The best finalist on validation that can be scored on test, and the rivals that can be."""
    starts = [validation.best_start(), validation.best_start("baseline")]
    beside = rivals(ledger, [start[0].label for start in starts if start is not None])
    ranked = [entrant for entrant, _ in validation.ranked]
    scored = score_entrants(ledger, ending, [ranked[0], *beside], TEST)
    trials = {entrant.recipe.to_yaml(): trial for entrant, trial in scored}
    failed: list[LeftOut] = []
    for origin in ranked:
        merge = origin.recipe.to_yaml()
        if merge not in trials:
            [(_, trials[merge])] = score_entrants(ledger, ending, [origin], TEST, first=len(trials))
        reason = why_unscored(trials[merge])
        if reason is None:
            break
        failed.append(LeftOut(label=origin.label, role="winner", split="test", reason=reason))
    others = [
        (entrant, trial)
        for entrant, trial in scored[1:]
        if why_unscored(trial) is None
        and (entrant.role in START_ROLES or entrant.label != origin.label)
    ]
    if len(failed) == len(ranked) or not others:
        pass_over(ledger, ending, TEST, len(trials))
        noun = "model to compare the winner with" if len(failed) < len(ranked) else "finalist"
        reasons = [why_unscored(trial) for trial in trials.values()]
        raise WorkerError(
            f"no {noun} could be scored on the test items: {next(filter(None, reasons))}; resume "
            "tries them again"
        )
    known = {out.label for out in failed}
    beside_out = [
        LeftOut(label=entrant.label, role=entrant.role, split="test", reason=reason)
        for entrant, trial in scored[1:]
        if entrant.label not in known and (reason := why_unscored(trial)) is not None
    ]
    return _Tested(
        origin=origin,
        winner=(replace(origin, role="winner"), trials[merge]),
        others=tuple(others),
        feasible=len(failed) < validation.feasible,
        left_out=(*validation.left_out, *failed, *beside_out),
    )


def _conclude(ledger: Ledger, validation: Validation, tested: _Tested, *, last: int) -> Selection:
    objective, seed = (
        ledger.objective_of(tested.winner[1].key),
        ledger.preparation.job.optimizer.seed,
    )
    on_validation = ledger.preparation.objective.on("validation")
    (winner, trial), origin = tested.winner, tested.origin
    comparisons = _compare(ledger, tested.winner, tested.others)
    gains = {entry.label: entry.difference.interval for entry in comparisons}
    scores = {entrant.label: objective.score(trial.means) for entrant, trial in tested.others}
    # Without a parent, the winner is compared with the best model that there is.
    parents = [entrant.label for entrant, _ in tested.others if entrant.role == "parent"]
    best_parent = max(parents or scores, key=lambda label: scores[label])
    best_start, best_untuned = validation.best_start(), validation.best_start("baseline")
    found = origin.role not in START_ROLES
    tasks = {leaf.task for leaf in leaves_of(objective.axes)}
    return Selection(
        winner=winner.label,
        recipe=winner.recipe,
        genome=winner.genome,
        test_key=trial.key,
        validation=tuple(
            summarise(e.label, e.role, items_of(ledger, t), objective=on_validation, seed=seed)
            for e, t in validation.ranked
        ),
        test=tuple(
            summarise(e.label, e.role, items_of(ledger, t), objective=objective, seed=seed)
            for e, t in (tested.winner, *tested.others)
        ),
        best_parent=best_parent,
        gain=gains[best_parent],
        gain_over_soup=gains.get(UNIFORM_SOUP),
        constraints=_check_constraints(ledger, tested),
        items={"validation": dict(validation.ranked[0][1].items), "test": dict(trial.items)},
        origin=origin.role,
        comparisons=comparisons,
        on_validation=_on_validation(ledger, validation, origin) if found else None,
        best_start=best_start and best_start[0].label,
        best_untuned=best_untuned and best_untuned[0].label,
        feasible=tested.feasible,
        left_out=tested.left_out,
        objective_items=sum(trial.items[task] for task in tasks),
        tested_before=tested_before(ledger.study.trials, last),
    )


def _compare(
    ledger: Ledger, winner: tuple[Entrant, Trial], others: tuple[tuple[Entrant, Trial], ...]
) -> tuple[Comparison, ...]:
    """The winner minus each of the others on the test items, adjusted for their number."""
    scores = items_of(ledger, winner[1])
    differences = simultaneous_differences(
        ledger.objective_of(winner[1].key),
        [(scores, items_of(ledger, trial)) for _, trial in others],
        seed=ledger.preparation.job.optimizer.seed,
    )
    return tuple(
        Comparison(label=entrant.label, role=entrant.role, difference=difference)
        for (entrant, _), difference in zip(others, differences, strict=True)
    )


def _on_validation(ledger: Ledger, validation: Validation, winner: Entrant) -> Comparison | None:
    """The winner minus the best start, adjusted for all candidates that it was chosen from."""
    start = validation.best_start()
    if start is None:
        return None
    entrant, trial = start
    candidates = validation.candidates
    differences = simultaneous_differences(
        ledger.objective_of(trial.key),
        [(items_of(ledger, each), items_of(ledger, trial)) for _, each in candidates],
        seed=ledger.preparation.job.optimizer.seed,
    )
    place = [each for each, _ in candidates].index(winner)
    return Comparison(label=entrant.label, role=entrant.role, difference=differences[place])


def _check_constraints(ledger: Ledger, tested: _Tested) -> tuple[ConstraintCheck, ...]:
    constraints = ledger.objective_of(tested.winner[1].key).constraints
    thresholds = thresholds_among(ledger, tested.others)
    won = means_of(items_of(ledger, tested.winner[1]))
    return tuple(
        ConstraintCheck(
            task=constraint.metric.task,
            metric=constraint.metric.key,
            score=constraint.metric.mean(won),
            wanted=threshold,
        )
        for constraint, threshold in zip(constraints, thresholds, strict=True)
    )

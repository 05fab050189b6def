"""The choice of a point of a front: by name, by weights of the tasks, or by scores to reach.

Points are chosen by their validation scores, so that their test scores stay fair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import RunError
from evomerge.search.results.front import MODE, Axis, Front, Point, read_front
from evomerge.search.results.selection import Selection, read_selection
from evomerge.study import SELECTION, Study

# The outcome of a job, a winner or a front, as the record keeps it under one name.


SearchOutcome = Selection | Front
"""The outcome of a search: a winner in `mode: single`, a front in `mode: pareto`."""


def outcome_of(study: Study) -> SearchOutcome | None:
    """The outcome of a search, a winner or a front; None before there is one."""
    document = study.noted(SELECTION)
    return None if document is None else read_outcome(document)


def read_outcome(document: Mapping[str, Any]) -> SearchOutcome:
    """The outcome as a record keeps it."""
    return read_front(document) if document.get("mode") == MODE else read_selection(document)


@dataclass(frozen=True, kw_only=True)
class ChosenPoint:
    """A point of a front, and why it is the one, in words that follow "chosen"."""

    front: Front
    point: Point
    why: str


def chosen_outcome(study: Study, point: str | None) -> Selection | ChosenPoint:
    """What a finished search delivers: its winner, or the wanted point of its front.

    point: as `--point` gives it. Raises RunError where the search has not ended, or `point` does
    not fit its outcome.
    """
    outcome = outcome_of(study)
    if outcome is None:
        raise RunError(
            f"{study.run_dir}: the search has not ended; finish it with `evomerge resume "
            f"{study.run_dir}`, or name a candidate with --trial"
        )
    if isinstance(outcome, Selection):
        if point is not None:
            raise RunError(
                f"--point {point}: {study.run_dir} has one winner and no front; leave --point out, "
                "or name a candidate with --trial"
            )
        return outcome
    if point is None:
        raise RunError(
            f"{study.run_dir}: the search ended with a front; choose a point with --point: "
            f"{_names(outcome)}, TASK=WEIGHT,... or 'TASK>=SCORE'"
        )
    return choose_point(outcome, point)


def choose_point(front: Front, wish: str) -> ChosenPoint:
    """The point that a wish, the value of `--point`, describes. Raises RunError in one line."""
    named = front.point(wish)
    if named is not None:
        return ChosenPoint(front=front, point=named, why="by name")
    if re.search(r"[<>]=", wish):
        return _by_reach(front, wish)
    if "=" in wish:
        return _by_weights(front, wish)
    raise RunError(
        f"--point {wish}: no point of the front; it has {_names(front)} (--trial exports any "
        "recorded candidate)"
    )


def _by_weights(front: Front, wish: str) -> ChosenPoint:
    """The highest weighted sum (rewarded soups' preferences, Rame et al. 2023)."""
    weights: dict[Axis, float] = {}
    for part in wish.split(","):
        name, _, text = part.partition("=")
        axis = _axis(front, name.strip(), wish)
        if axis in weights:
            raise RunError(f"--point {wish}: {axis} is weighed twice; add up its weights")
        weights[axis] = _number(text, wish)
        if weights[axis] < 0.0:
            raise RunError(f"--point {wish}: {text.strip()} is below 0; give weights of 0 or more")
    if not any(weights.values()):
        raise RunError(f"--point {wish}: the weights are all 0; give one that is above 0")

    def worth(point: Point) -> float:
        return sum(weight * _score(point, axis) for axis, weight in weights.items())

    shares = ", ".join(f"{axis} {weight:g}" for axis, weight in weights.items())
    point = max(front.points, key=worth)
    return ChosenPoint(
        front=front, point=point, why=f"for the highest weighted validation score ({shares})"
    )


def _by_reach(front: Front, wish: str) -> ChosenPoint:
    """The point with the best mean of the other axes, among those that reach every bound."""
    kept, bounded = list(front.points), []
    for part in wish.split(","):
        found = re.search(r"[<>]=", part)
        task, given = (part[: found.start()], part[found.end() :]) if found else ("", "")
        if found is None or not task.strip() or not given.strip():
            raise RunError(
                f"--point {wish}: {part} is no TASK>=SCORE; write that form, with commas between"
            )
        axis = _axis(front, task.strip(), wish)
        sense = ">" if axis.higher_is_better else "<"
        if found[0] != f"{sense}=":
            better = "higher" if axis.higher_is_better else "lower"
            raise RunError(f"--point {wish}: {axis} is better when {better}; write {sense}=")
        bound = _number(given, wish) * (1.0 if axis.higher_is_better else -1.0)
        scores = [_score(point, axis) for point in kept]
        if max(scores) < bound:
            nearest = kept[scores.index(max(scores))]
            raise RunError(
                f"--point {wish}: no point reaches it on the validation items; the nearest is "
                f"{nearest.label} with {axis.of(nearest.validation).value:.3f}"
            )
        kept = [point for point, score in zip(kept, scores, strict=True) if score >= bound]
        bounded.append(axis)
    others = [axis for axis in front.axes if axis not in bounded] or list(front.axes)
    point = max(kept, key=lambda point: sum(_score(point, axis) for axis in others))
    names = ", ".join(str(axis) for axis in others)
    return ChosenPoint(
        front=front,
        point=point,
        why=f"for the best mean of {names} among the points with {wish} on the validation items",
    )


def _axis(front: Front, name: str, wish: str) -> Axis:
    found = [axis for axis in front.axes if name in (axis.task, str(axis))]
    if len(found) != 1:
        known = ", ".join(_names_of(front.axes))
        problem = "is several axes" if found else "is no axis of the front"
        raise RunError(f"--point {wish}: {name} {problem}; write one of {known}")
    return found[0]


def _names_of(axes: Sequence[Axis]) -> list[str]:
    """The shortest name of each axis that no other axis has."""
    tasks = [axis.task for axis in axes]
    return [axis.task if tasks.count(axis.task) == 1 else str(axis) for axis in axes]


def _number(text: str, wish: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise RunError(f"--point {wish}: {text.strip()} is no number; write one like 0.7")
    return number


def _score(point: Point, axis: Axis) -> float:
    """Validation score, higher is better."""
    value = axis.of(point.validation).value
    return value if axis.higher_is_better else -value


def _names(front: Front) -> str:
    return ", ".join(point.label for point in front.points)

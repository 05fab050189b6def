"""The outcome of a search in `mode: pareto`: a front of merges, and what may be claimed of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge.evaluate import CandidateKey, Interval, Role, ScoreSummary, read_summary
from evomerge.recipe import Recipe, read_recipe
from evomerge.search.results.claim import (
    START_ROLES,
    LeftOut,
    Verdict,
    interval_words,
    seen_words,
    test_items_words,
    verdict_of,
)
from evomerge.search.results.selection import ConstraintCheck

MODE = "pareto"
"""The `mode` in the record of a front; the record of a winner has none."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An objective of the front."""

    task: str
    metric: str
    higher_is_better: bool

    def __str__(self) -> str:
        return f"{self.task}/{self.metric}"

    def of(self, summary: ScoreSummary) -> Interval:
        """A model's score on this axis."""
        return summary.tasks[self.task][self.metric]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A merge on the front.

    label: the name of the candidate or of the start. validation: the scores that put it on the
    front. test: its scores on the test items, which did not choose it. test_key: its record on the
    test items. constraints: on the test items. dominates: parents that it is above on one axis and
    below on none, on the test items. surely: those of them for which that is settled, over all
    pairs of points and parents at once.
    """

    label: str
    role: Role
    recipe: Recipe
    genome: tuple[float, ...] | None
    test_key: CandidateKey
    validation: ScoreSummary
    test: ScoreSummary
    constraints: tuple[ConstraintCheck, ...]
    dominates: tuple[str, ...]
    surely: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether the search found it; if not, it is a start."""
        return self.role not in START_ROLES


@dataclass(frozen=True, kw_only=True)
class Front:
    """The outcome of a search with several objectives.

    points: by their validation score on the first axis, the worst first. rivals: base, parents and
    the uniform soup on the test items. validated: every model that was scored for the front.

    volume: hypervolume of the points on the test items, in units of a box that ends at the best
    parent on each axis (see evaluate.fronts.Box). gain: its gain over the parents' own front.
    over_starts: its gain over the front of all untuned models that were scored on those items.
    feasible: whether any point kept the constraints on the validation items. items: split -> task
    -> items scored. tested_before: see Selection.
    """

    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    rivals: tuple[ScoreSummary, ...]
    validated: tuple[ScoreSummary, ...]
    volume: float
    gain: Interval
    over_starts: Interval
    feasible: bool
    left_out: tuple[LeftOut, ...]
    items: Mapping[str, Mapping[str, int]]
    tested_before: int = 0

    @property
    def found(self) -> tuple[Point, ...]:
        """The points that the search found."""
        return tuple(point for point in self.points if point.found)

    @property
    def verdict(self) -> Verdict:
        """What may be claimed: a gain only over the parents and over all untuned models.

        There is no gain where the search found none of the points, or no point keeps the
        constraints.
        """
        if not self.found or not self.feasible:
            return "no gain"
        return verdict_of([self.gain, self.over_starts])

    @property
    def better(self) -> bool:
        """Whether the front is above that of the parents and of the starts at all."""
        return self.verdict != "no gain"

    def headline(self) -> str:
        """What the front gained, in sentences; the first gives the verdict."""
        return f"{self._claim()} {self._domination()}"

    def remarks(self) -> list[str]:
        """What else a reader must know of the front, in sentences."""
        seen = [seen_words(self.tested_before)] if self.tested_before else []
        return [*seen, *(f"Left out: {out}." for out in self.left_out)]

    def lines(self) -> list[str]:
        """The outcome for a terminal: the headline, then the points with their test scores."""
        rows = [(point.label, point.test, self._note(point)) for point in self.points]
        rows += [
            (rival.label, rival, rival.role)
            for rival in self.rivals
            if self.point(rival.label) is None
        ]
        width = max(len(label) for label, _, _ in rows)
        axes = ", ".join(str(axis) for axis in self.axes)
        return [
            self.headline(),
            *self.remarks(),
            f"Test scores with 95% intervals ({axes}), the points of the front first:",
            *(
                f"  {label:<{width}}  "
                + "  ".join(_score_words(axis.of(summary)) for axis in self.axes)
                + f"  {note}"
                for label, summary, note in rows
            ),
            *(
                f"  constraint {check.task}/{check.metric} NOT KEPT by {point.label}: "
                f"{check.score:.3f}, wanted {check.wanted:.3f}"
                for point in self.points
                for check in point.constraints
                if not check.kept
            ),
        ]

    def export_command(self, run_dir: Path, program: str = "evomerge") -> str:
        """The command that exports a point, if possible one that the search found."""
        point = (self.found or self.points)[0]
        return f"{program} export {run_dir} --out DIR --point {shlex.quote(point.label)}"

    def point(self, label: str) -> Point | None:
        """The point of that name, or None."""
        return next((point for point in self.points if point.label == label), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_front` reads back equal, and the headline in words."""
        points = [{**asdict(point), "recipe": point.recipe.to_yaml()} for point in self.points]
        return {
            **asdict(self),
            "points": points,
            "mode": MODE,
            "headline": self.headline(),
            "test_key": asdict(self.points[0].test_key),
        }

    def _claim(self) -> str:
        against = f"against the parents' own front on {test_items_words(self.tested_before)}"
        front = f"a front of {len(self.points)} merges"
        if not self.feasible:
            return (
                "No gain: nothing keeps the constraints on the validation items; the front has the "
                "models that come nearest."
            )
        if not self.found:
            return (
                "No gain: no candidate is on the front of the validation items, so all of its "
                f"{len(self.points)} models were there without a search."
            )
        gain = f"{interval_words(self.gain)} of hypervolume"
        besides = f"; against all untuned models {interval_words(self.over_starts)}"
        found = f" {len(self.found)} of its merges came from the search."
        if self.verdict == "no gain":
            return f"No gain: {front} has {gain} {against}{besides}.{found}"
        if self.verdict == "not settled":
            return f"Not settled: {front} has {gain} {against}{besides}.{found}"
        return f"Gained {gain}: {front} {against}{besides}.{found}"

    def _domination(self) -> str:
        """Which points that the search found dominate a parent, in words."""
        over = [point for point in self.found if point.dominates]
        if not over:
            return "No point dominates a parent there."
        sure = [point for point in over if point.surely]
        claim = f"{_names(over)} score no lower than a parent on every axis there and higher on one"
        if not sure:
            return f"{claim}; that is settled for none."
        settled = ", ".join(f"{point.label} over {_listed(point.surely)}" for point in sure)
        return f"{claim}; settled: {settled}."

    def _note(self, point: Point) -> str:
        over = f", dominates {_listed(point.dominates)}" if point.dominates else ""
        return f"on the front{'' if point.found else f' ({point.role})'}{over}"


def read_front(document: Mapping[str, Any]) -> Front:
    """The front kept in a record."""
    return Front(
        axes=tuple(Axis(**axis) for axis in document["axes"]),
        points=tuple(_read_point(point) for point in document["points"]),
        rivals=tuple(read_summary(entry) for entry in document["rivals"]),
        validated=tuple(read_summary(entry) for entry in document["validated"]),
        volume=document["volume"],
        gain=Interval(**document["gain"]),
        over_starts=Interval(**document["over_starts"]),
        feasible=document["feasible"],
        left_out=tuple(LeftOut(**out) for out in document["left_out"]),
        items=document["items"],
        tested_before=document["tested_before"],
    )


def _read_point(document: Mapping[str, Any]) -> Point:
    genome = document["genome"]
    return Point(
        label=document["label"],
        role=document["role"],
        recipe=read_recipe(document["recipe"], where=f"the recipe of {document['label']}"),
        genome=None if genome is None else tuple(genome),
        test_key=CandidateKey(**document["test_key"]),
        validation=read_summary(document["validation"]),
        test=read_summary(document["test"]),
        constraints=tuple(ConstraintCheck(**check) for check in document["constraints"]),
        dominates=tuple(document["dominates"]),
        surely=tuple(document["surely"]),
    )


def _score_words(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _names(points: list[Point]) -> str:
    return _listed(tuple(point.label for point in points))


def _listed(labels: tuple[str, ...]) -> str:
    *others, last = labels
    return f"{', '.join(others)} and {last}" if others else last

"""A front as the status and the report show it: its points and their scores."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import plotly.graph_objects as go

from evomerge.evaluate import Interval, Role, ScoreSummary
from evomerge.report.figures import Figure, layout_of, safe_text, spec_of, spread_of, titled
from evomerge.report.words import one_line, score_text
from evomerge.search import Axis, Front, Point

# Fronts as figures: two objectives against each other, the points of the front among the others.
#
# More than two objectives are drawn pair by pair.


_HEIGHT = 420  # CSS pixels
_WRAP_LETTERS = 18


def front_figures(front: Front) -> tuple[Figure, ...]:
    """One figure for each pair of axes, scores on the test items with their intervals."""
    return tuple(_pair(front, across, up) for across, up in itertools.combinations(front.axes, 2))


def _pair(front: Front, across: Axis, up: Axis) -> Figure:
    members = [point.test for point in front.points]
    others = [rival for rival in front.rivals if front.point(rival.label) is None]
    # The front is drawn last, over the others.
    traces = [
        *(_mark(entry, across, up, on_front=False) for entry in others),
        *(_mark(entry, across, up, on_front=True) for entry in members),
    ]
    layout = layout_of(_HEIGHT, margin={"l": 8, "r": 16, "t": 4, "b": 46})
    for name, axis in (("xaxis", across), ("yaxis", up)):
        ends = [
            end
            for entry in (*members, *others)
            for end in (axis.of(entry).low, axis.of(entry).high)
        ]
        better = "" if axis.higher_is_better else ", lower is better"
        extent = spread_of(ends)
        if not axis.higher_is_better:
            extent = (extent[1], extent[0])
        layout[name] |= titled(f"{axis.task}, {axis.metric}{better}") | {"range": list(extent)}
    layout["yaxis"]["automargin"] = True
    scores = "; ".join(
        f"{entry.label} {score_text(across.of(entry).value)}, {score_text(up.of(entry).value)}"
        for entry in (*members, *others)
    )
    return Figure(
        title=f"{up.task} against {across.task}",
        description=f"Scores on {across} and {up}: {scores}",
        height=_HEIGHT,
        spec=spec_of(traces, layout),
    )


def _mark(summary: ScoreSummary, across: Axis, up: Axis, *, on_front: bool) -> go.Scatter:
    x, y = across.of(summary), up.of(summary)
    colour = "var(--accent)" if on_front else "var(--neutral)"
    name = safe_text(summary.label, wrap=_WRAP_LETTERS)
    bar = {"type": "data", "symmetric": False, "color": colour, "thickness": 1, "width": 0}
    return go.Scatter(
        x=[x.value],
        y=[y.value],
        mode="markers+text",
        text=[name],
        textposition="top right",
        textfont={"size": 11},
        marker={"size": 9, "color": colour, "symbol": "diamond" if on_front else "circle"},
        error_x={**bar, "array": [x.high - x.value], "arrayminus": [x.value - x.low]},
        error_y={**bar, "array": [y.high - y.value], "arrayminus": [y.value - y.low]},
        hovertext=f"{name}<br>{safe_text(across.task)} {score_text(x.value)}"
        f"<br>{safe_text(up.task)} {score_text(y.value)}",
        hoverinfo="text",
    )


@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """The scores of a model on the test items, by axis.

    validation: the scores that put a point on the front; empty for a model that is not on it.
    dominates: parents that it is below on no axis and above on at least one. surely: parents for
    which the intervals settle it.
    """

    label: str
    role: Role
    test: Mapping[str, Interval]
    validation: Mapping[str, Interval]
    dominates: tuple[str, ...] = ()
    surely: tuple[str, ...] = ()
    constraints_kept: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs; axes are named TASK/METRIC."""
        return asdict(self)

    def __str__(self) -> str:
        """The scores on the test items in one line."""
        parts = [
            f"{axis} {score_text(span.value)} [{score_text(span.low)}, {score_text(span.high)}]"
            for axis, span in self.test.items()
        ]
        over = f", dominates {', '.join(self.dominates)}" if self.dominates else ""
        broken = "" if self.constraints_kept else ", breaks a constraint"
        return f"{one_line(self.label)}: {'; '.join(parts)}{over}{broken}"


def rows_of(front: Front) -> tuple[FrontRow, ...]:
    """The points of the front, in its order."""
    return tuple(_row_of(front, point) for point in front.points)


def front_parts(front: Front) -> dict[str, Any]:
    """The values that the template of a front uses."""
    rivals = [
        FrontRow(label=rival.label, role=rival.role, test=_scores(front, rival), validation={})
        for rival in front.rivals
        if front.point(rival.label) is None
    ]
    return {
        "outcome": front,
        "axes": [str(axis) for axis in front.axes],
        "points": rows_of(front),
        "rivals": rivals,
        "figures": front_figures(front),
        "checks": [(point.label, check) for point in front.points for check in point.constraints],
    }


def _row_of(front: Front, point: Point) -> FrontRow:
    return FrontRow(
        label=point.label,
        role=point.role,
        test=_scores(front, point.test),
        validation=_scores(front, point.validation),
        dominates=point.dominates,
        surely=point.surely,
        constraints_kept=all(check.kept for check in point.constraints),
    )


def _scores(front: Front, summary: ScoreSummary) -> dict[str, Interval]:
    return {str(axis): axis.of(summary) for axis in front.axes}

"""What the status and the report show of a front: its points, what they score, how to have one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.evaluate.intervals import Interval
from evomerge.outcome import Front, Point
from evomerge.report.front_figures import front_figures
from evomerge.report.words import one_line, score_text
from evomerge.standing import Role, Standing


@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """A model on the test items, axis by axis.

    validation: what a point was chosen by; empty for a model that is not on the front. dominates:
    parents that it is nowhere below and somewhere above; surely: those for which it is settled.
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
            f"{axis} {score_text(it.value)} [{score_text(it.low)}, {score_text(it.high)}]"
            for axis, it in self.test.items()
        ]
        over = f", dominates {', '.join(self.dominates)}" if self.dominates else ""
        broken = "" if self.constraints_kept else ", breaks a constraint"
        return f"{one_line(self.label)}: {'; '.join(parts)}{over}{broken}"


def rows_of(front: Front) -> tuple[FrontRow, ...]:
    """The points of the front, in its order."""
    return tuple(_row_of(front, point) for point in front.points)


def front_parts(front: Front) -> dict[str, Any]:
    """Everything that the page of a front names."""
    rivals = [
        FrontRow(label=one.label, role=one.role, test=_scores(front, one), validation={})
        for one in front.rivals
        if front.point(one.label) is None
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


def _scores(front: Front, standing: Standing) -> dict[str, Interval]:
    return {str(axis): axis.of(standing) for axis in front.axes}

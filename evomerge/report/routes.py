"""The layout of a route's picture: columns of layers, and the points of the line.

Column c is at x = c, layer i at y = i.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evomerge.report.slot_history import Known
from evomerge.route import Hop
from evomerge.space import short_names

COLUMN_WIDTH = 0.8
"""Width of a layer's box; columns are 1 apart."""

END_GAP = 1.1
"""From the middle of the outermost layer to the embedding below, and to the head above."""

_POINTS = 16
"""Points of a line from one column to another."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A model: how often the route passes through each of its layers, (depth,)."""

    model: Known
    uses: tuple[int, ...]

    @property
    def used(self) -> int:
        """How many of its layers are on the route."""
        return sum(count > 0 for count in self.uses)

    @property
    def repeated(self) -> int:
        """How many of its layers the route passes through more than once."""
        return sum(count > 1 for count in self.uses)


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A drawn hop. line: the points from the stop before, or from the embedding."""

    hop: Hop
    x: float
    line: tuple[Point, ...]

    @property
    def y(self) -> float:
        """The height, which is the layer's number."""
        return float(self.hop.layer)

    @property
    def jumps(self) -> bool:
        """Whether the line comes from another visit."""
        return len(self.line) > 2


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A drawn route. exit: from the last stop to the head. lanes: the most in a column."""

    columns: tuple[Column, ...]
    stops: tuple[Stop, ...]
    exit: tuple[Point, ...]
    lanes: int


def lay_route(hops: Sequence[Hop], models: Sequence[Known]) -> Drawn:
    """Lay a route over the columns of its models.

    models: those that the route may use; other models on it get columns after them. Every visit to
    a column has its own lane there, so that lines never overlap.
    """
    columns = _columns(hops, models)
    places = {column.model.reference: place for place, column in enumerate(columns)}
    visits = visits_of(hops)
    totals = Counter(visit[0].model for visit in visits)
    lanes: Counter[str] = Counter()
    stops: list[Stop] = []
    for visit in visits:
        model = visit[0].model
        share = (lanes[model] + 0.5) / totals[model] - 0.5
        x = places[model] + COLUMN_WIDTH * share
        lanes[model] += 1
        for hop in visit:
            end = (x, float(hop.layer))
            if not stops:
                line: tuple[Point, ...] = ((x, -END_GAP), end)
            elif hop is visit[0]:
                line = jump((stops[-1].x, stops[-1].y), end)
            else:
                line = ((x, stops[-1].y), end)
            stops.append(Stop(hop=hop, x=x, line=line))
    top = max(len(column.uses) for column in columns) - 1 + END_GAP
    last = (stops[-1].x, stops[-1].y)
    return Drawn(
        columns=columns,
        stops=tuple(stops),
        exit=(last, (last[0], top)),
        lanes=max(totals.values()),
    )


def visits_of(hops: Iterable[Hop]) -> list[list[Hop]]:
    """The hops in runs that stay in one model and only go up."""
    visits: list[list[Hop]] = []
    for hop in hops:
        last = visits[-1][-1] if visits else None
        if last is not None and last.model == hop.model and last.layer < hop.layer:
            visits[-1].append(hop)
        else:
            visits.append([hop])
    return visits


def jump(start: Point, end: Point) -> tuple[Point, ...]:
    """A curve that leaves `start` upwards and comes to `end` from below (a cubic Bézier curve)."""
    (x0, y0), (x1, y1) = start, end
    reach = min(3.0, max(1.2, 0.4 * abs(y1 - y0)))
    points = []
    for step in range(_POINTS + 1):
        t = step / _POINTS
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        x = (a + b) * x0 + (c + d) * x1
        points.append((x, a * y0 + b * (y0 + reach) + c * (y1 - reach) + d * y1))
    return tuple(points)


def _columns(hops: Sequence[Hop], models: Sequence[Known]) -> tuple[Column, ...]:
    uses = Counter((hop.model, hop.layer) for hop in hops)
    known = {model.reference for model in models}
    unlisted = [name for name in dict.fromkeys(h.model for h in hops) if name not in known]
    added = [
        Known(name=name, reference=reference, depth=1 + _last_layer(hops, reference))
        for reference, name in short_names(unlisted).items()
    ]
    return tuple(
        Column(
            model=model,
            uses=tuple(uses[model.reference or "", layer] for layer in range(model.depth)),
        )
        for model in (*models, *added)
    )


def _last_layer(hops: Sequence[Hop], model: str) -> int:
    return max(hop.layer for hop in hops if hop.model == model)

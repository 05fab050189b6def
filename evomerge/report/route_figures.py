"""The picture of a route: models as columns of layers, the way through them as a line.

`routes.py` computes its points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from evomerge.recipe import Recipe
from evomerge.report.figures import Figure, layout_of, safe_text, spec_of, titled
from evomerge.report.routes import COLUMN_WIDTH, END_GAP, Column, Drawn, Stop, lay_route
from evomerge.report.slot_history import Known
from evomerge.report.words import count_text
from evomerge.route import hops_of

_UNIT_WEIGHT = 4.0  # CSS pixels, as all below: the line into a layer whose scale is 1
_THINNEST, _THICKEST = 0.75, 14.0
_ROW_HEIGHTS = ((40, 20), (80, 12))
"""(most layers, height of a layer): deeper models have flatter layers."""

_FLATTEST = 8
_MOST_LANES_LABELLED = 18
"""Side by side; with more lanes the numbers would touch."""

_LEAST_COLUMNS = 3
"""The figure is at least this wide, so that a single column does not fill it."""

_NAME_LETTERS = 18
_COLOURS = 8
_LEAST_ARROW = 12


@dataclass(frozen=True, kw_only=True)
class StretchRow:
    """Consecutive layers of a route as a table shows them."""

    hops: str
    model: str
    layers: str
    scale: float


@dataclass(frozen=True, kw_only=True)
class RouteView:
    """A route as a page shows it.

    leading: the model that gives the embedding and the head; it has `depth` layers. weights: widths
    of lines and their scales; empty if nothing is scaled.
    """

    figure: Figure
    rows: tuple[StretchRow, ...]
    hops: int
    leading: str
    depth: int
    weights: tuple[tuple[float, str], ...]


def show_route(recipe: Recipe, models: Sequence[Known]) -> RouteView:
    """The picture and the table of a recipe's route; models: those that a route may use."""
    hops = hops_of(recipe)
    drawn = lay_route(hops, models)
    names = {column.model.reference: column.model.name for column in drawn.columns}
    leading = next(column for column in drawn.columns if column.model.reference == hops[0].model)
    scales = sorted({hop.scale for hop in hops})
    shown = sorted({min(scales, key=abs), 1.0, max(scales, key=abs)}) if scales != [1.0] else []
    return RouteView(
        figure=route_figure(drawn, recipe),
        rows=tuple(_rows(recipe, names)),
        hops=len(hops),
        leading=leading.model.name,
        depth=leading.model.depth,
        weights=tuple((line_weight(scale), f"{scale:.2f}") for scale in shown),
    )


def route_figure(drawn: Drawn, recipe: Recipe) -> Figure:
    """A column of layers for each model, and the line from the embedding to the head."""
    depth = max(len(column.uses) for column in drawn.columns)
    row = next((height for most, height in _ROW_HEIGHTS if depth <= most), _FLATTEST)
    margin = {"l": 46, "r": 12, "t": 8, "b": 84}
    height = round(row * (depth + 2 * END_GAP + 0.8)) + margin["t"] + margin["b"]
    layout = layout_of(height, margin=margin)
    count = len(drawn.columns)
    layout["xaxis"] |= {
        "range": [-0.5, max(count, _LEAST_COLUMNS) - 0.5],
        "showgrid": False,
        "tickvals": list(range(count)),
        "ticktext": [_caption(column, recipe) for column in drawn.columns],
        "tickangle": 0,
    }
    layout["yaxis"] |= titled("layer") | {
        "range": [-END_GAP - 0.9, depth - 1 + END_GAP + 0.9],
        "showgrid": False,
        "tickvals": list(range(0, depth, 1 if depth <= 16 else 4)),
    }
    layout["shapes"] = [*_boxes(drawn), _end(drawn.stops[0], -1), _end(drawn.stops[-1], depth)]
    ends = [
        _end_text("embedding", drawn.stops[0], drawn, -1),
        _end_text("norm, head", drawn.stops[-1], drawn, depth),
    ]
    labelled = row > _FLATTEST and count * drawn.lanes <= _MOST_LANES_LABELLED
    layout["annotations"] = [*ends, *(_labels(drawn) if labelled else [])]
    stretches = "; ".join(
        f"{row.model} {row.layers}" + (f" by {row.scale:.2f}" if row.scale != 1.0 else "")
        for row in _rows(
            recipe, {column.model.reference: column.model.name for column in drawn.columns}
        )
    )
    return Figure(
        title="Route",
        description=f"Route through {len(drawn.stops)} layers: {stretches}.",
        height=height,
        spec={
            **spec_of([*_lines(drawn), _dots(drawn)], layout),
            "narrow": {"annotations": ends},
        },
    )


def line_weight(scale: float) -> float:
    """Width of the line into a layer, in CSS pixels.

    It grows with the square of the scale, for most scales are close to 1, within visible widths.
    """
    return min(max(_UNIT_WEIGHT * scale * scale, _THINNEST), _THICKEST)


def _lines(drawn: Drawn) -> Iterator[go.Scatter]:
    """The line in pieces of one weight; dashed where the scale is negative."""
    for scale, group in groupby(drawn.stops, key=lambda stop: stop.hop.scale):
        points = [point for stop in group for point in stop.line]
        yield _line(points, scale)
    yield _line(drawn.exit, 1.0)
    yield _arrows([stop for stop in drawn.stops if stop.jumps])


def _arrows(stops: Sequence[Stop]) -> go.Scatter:
    """An arrowhead in the middle of each line that leaves its column or goes back down."""
    middle = len(stops[0].line) // 2 if stops else 0
    points = [point for s in stops for point in (*s.line[middle - 1 : middle + 1], (None, None))]
    sizes = [max(_LEAST_ARROW, 2.2 * line_weight(stop.hop.scale)) for stop in stops]
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="markers",
        marker={
            "symbol": "arrow",
            "angleref": "previous",  # the point before it, which has no size
            "size": [size for at in sizes for size in (0, at, 0)],
            "color": "var(--ink)",
            "opacity": 1,
            "line": {"width": 0},
        },
        hoverinfo="skip",
    )


def _line(points: Sequence[tuple[float, float]], scale: float) -> go.Scatter:
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines",
        line={
            "width": line_weight(scale),
            "color": "var(--ink)",
            "dash": "dot" if scale < 0.0 else "solid",
        },
        hoverinfo="skip",
    )


def _dots(drawn: Drawn) -> go.Scatter:
    names = {column.model.reference: column.model.name for column in drawn.columns}
    return go.Scatter(
        x=[stop.x for stop in drawn.stops],
        y=[stop.y for stop in drawn.stops],
        mode="markers",
        marker={
            "size": 9,
            "color": [f"var(--c{_colour(drawn, stop)})" for stop in drawn.stops],
            "line": {"width": 1.5, "color": "var(--page)"},
        },
        hovertext=[
            f"hop {number} of {len(drawn.stops)}<br>{safe_text(names[stop.hop.model])} "
            f"layer {stop.hop.layer}<br>scale {stop.hop.scale:.3f}"
            for number, stop in enumerate(drawn.stops, start=1)
        ],
        hoverinfo="text",
    )


def _colour(drawn: Drawn, stop: Stop) -> int:
    references = [column.model.reference for column in drawn.columns]
    return references.index(stop.hop.model) % _COLOURS + 1


def _boxes(drawn: Drawn) -> Iterator[dict[str, Any]]:
    """The layers: filled where the route passes, pale elsewhere."""
    for place, column in enumerate(drawn.columns):
        colour = f"var(--c{place % _COLOURS + 1})"
        for layer, uses in enumerate(column.uses):
            yield _box(
                place,
                layer,
                fillcolor=colour if uses else "var(--tint)",
                opacity=0.45 if uses else 1.0,
                line={"width": 1 if uses else 0, "color": colour},
            )


def _end(stop: Stop, level: int) -> dict[str, Any]:
    """The embedding below the layers, or the head above them."""
    place = round(stop.x)
    away = END_GAP - 1.0
    shifted = level - away if level < 0 else level + away
    middle = shifted - 0.42 if level < 0 else shifted + 0.42
    return _box(
        place, middle, fillcolor="rgba(0,0,0,0)", line={"width": 1, "color": "var(--ink-2)"}
    )


def _end_text(text: str, stop: Stop, drawn: Drawn, level: int) -> dict[str, Any]:
    box = _end(stop, level)
    return {
        "x": round(stop.x),
        "y": (box["y0"] + box["y1"]) / 2,
        "text": text,
        "showarrow": False,
        "font": {"size": 11, "color": "var(--ink-2)"},
    }


def _box(place: int, middle: float, **style: Any) -> dict[str, Any]:
    half = COLUMN_WIDTH / 2
    return {
        "type": "rect",
        "layer": "below",
        "x0": place - half,
        "x1": place + half,
        "y0": middle - 0.42,
        "y1": middle + 0.42,
        **style,
    }


def _labels(drawn: Drawn) -> list[dict[str, Any]]:
    """The scales that are not 1, beside their layers, on the side where no line leaves."""
    ahead = [*(stop.x for stop in drawn.stops[1:]), drawn.stops[-1].x]
    return [
        {
            "x": stop.x,
            "y": stop.y,
            "xshift": -8 if after > stop.x else 8,
            "xanchor": "right" if after > stop.x else "left",
            "text": f"{stop.hop.scale:.2f}".replace("-", "−"),
            "showarrow": False,
            "font": {"size": 11, "color": "var(--ink)"},
        }
        for stop, after in zip(drawn.stops, ahead, strict=True)
        if stop.hop.scale != 1.0
    ]


def _caption(column: Column, recipe: Recipe) -> str:
    """Text under a column: its model, the stage that the model won, and the used layers."""
    lines = [f"<b>{safe_text(column.model.name, wrap=_NAME_LETTERS)}</b>"]
    if column.model.reference in recipe.stages:
        lines.append(f"winner of stage {list(recipe.stages).index(column.model.reference) + 1}")
    lines.append(f"{column.used} of {count_text(len(column.uses), 'layer')}")
    if column.repeated:
        lines.append(f"{column.repeated} of them repeated")
    return "<br>".join(lines)


def _rows(recipe: Recipe, names: dict[str | None, str]) -> Iterator[StretchRow]:
    passed = 0
    for stretch in recipe.route or ():
        first, end = stretch.layers
        count = end - first
        yield StretchRow(
            hops=_span(passed + 1, passed + count),
            model=names[stretch.model],
            layers=_span(first, end - 1),
            scale=stretch.scale,
        )
        passed += count


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"

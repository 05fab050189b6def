"""How a recipe's coefficients are shown: figures over depth, and a table of what is flat.

What the coefficients are is found out in `coefficients.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from evomerge.job import ModelsSpec
from evomerge.optimize.baselines import BASE, parent_labels
from evomerge.recipe import Recipe
from evomerge.report.coefficients import Coefficients, Outer, Panel, coefficients_of
from evomerge.report.figures import Figure, layout_of, spec_of, spread_of, titled
from evomerge.sources import Structure

_MARKS = (
    ("circle", "●"),
    ("square", "■"),
    ("diamond", "◆"),
    ("triangle-up", "▲"),
    ("triangle-down", "▼"),
    ("cross", "✚"),
    ("x", "✖"),
    ("star", "★"),
)
"""A mark for each colour of the page (--c1 to --c8): as plotly calls it, and as it looks."""

_HEIGHT = 230  # CSS pixels
_MOST_MARKED = 64
"""Layers: with more of them marks would touch."""


@dataclass(frozen=True, kw_only=True)
class ModelMark:
    """How a model is called and drawn; `reference` is empty for what belongs to no one model."""

    name: str
    reference: str
    colour: str
    glyph: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A parameter where it does not vary over depth; values in the order of the marks."""

    parameter: str
    where: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class CoefficientView:
    """All of a recipe's numbers as a page shows them; `fixed` holds for the whole merge."""

    method: str
    fixed: tuple[tuple[str, str], ...]
    marks: tuple[ModelMark, ...]
    figures: tuple[Figure, ...]
    rows: tuple[Row, ...]


def show_coefficients(recipe: Recipe, structure: Structure, job: ModelsSpec) -> CoefficientView:
    """A figure for each parameter and component that varies over depth, rows for the rest."""
    found = coefficients_of(recipe, structure)
    models = _models(recipe, found)
    by_parameter: dict[str, list[Panel]] = defaultdict(list)
    for panel in found.panels:
        by_parameter[panel.parameter].append(panel)
    figures: list[Figure] = []
    rows: list[Row] = []
    for panels in by_parameter.values():
        if any(curve.varies for panel in panels for curve in panel.curves):
            figures += [coefficient_figure(panel, models, panels) for panel in panels]
        else:
            rows += [_flat_row(panel, models) for panel in panels]
    rows += [_outer_row(outer, models) for outer in found.outer]
    names: dict[str | None, str] = {
        None: "the whole merge",
        job.base: BASE,
        **dict(zip(job.sources, parent_labels(job.sources), strict=True)),
    }
    marks = tuple(
        ModelMark(
            name=names.get(model) or str(model),
            reference=model or "",
            colour=_colour(place),
            glyph=_MARKS[place % len(_MARKS)][1],
        )
        for place, model in enumerate(models)
    )
    return CoefficientView(
        method=recipe.merge_method,
        fixed=found.fixed,
        marks=marks,
        figures=tuple(figures),
        rows=tuple(rows),
    )


def coefficient_figure(
    panel: Panel, models: Sequence[str | None], peers: Sequence[Panel]
) -> Figure:
    """One parameter over depth, a line for each model.

    models: all models of the recipe in the order of their colours. peers: the panels of the same
    parameter, which share the axis of values.
    """
    depth = len(panel.curves[0].values)
    traces = [
        go.Scatter(
            x=list(range(depth)),
            y=list(curve.values),
            mode="lines+markers" if depth <= _MOST_MARKED else "lines",
            line={"width": 2, "color": _colour(models.index(curve.model))},
            marker={"size": 6, "symbol": _MARKS[models.index(curve.model) % len(_MARKS)][0]},
            hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
        )
        for curve in panel.curves
    ]
    values = [v for peer in peers for curve in peer.curves for v in curve.values if v is not None]
    layout = layout_of(_HEIGHT, margin={"l": 52, "r": 12, "t": 8, "b": 46})
    layout["xaxis"] |= titled("layer") | {
        "range": [-0.5, depth - 0.5],
        "nticks": 8,
        "tickformat": "d",
    }
    layout["yaxis"] |= titled(panel.parameter) | {
        "range": list(spread_of(values)),
        "nticks": 6,
    }
    return Figure(
        title=f"{panel.parameter}: {panel.component}",
        description=f"{panel.parameter} of {panel.component} over {depth} layers",
        height=_HEIGHT,
        spec=spec_of(traces, layout),
    )


def _models(recipe: Recipe, found: Coefficients) -> list[str | None]:
    """Models that have numbers of their own, in the order of the recipe; None for the recipe."""
    having: set[str | None] = {c.model for panel in found.panels for c in panel.curves}
    having |= {model for outer in found.outer for model in outer.models}
    ordered: list[str | None] = [entry.model for entry in recipe.models]
    return [model for model in [*ordered, None] if model in having]


def _colour(place: int) -> str:
    return f"var(--c{place % len(_MARKS) + 1})"


def _flat_row(panel: Panel, models: Sequence[str | None]) -> Row:
    values = {curve.model: curve.values[0] for curve in panel.curves}
    return Row(
        parameter=panel.parameter,
        where=f"every layer: {panel.component}",
        values=tuple(values.get(model) for model in models),
    )


def _outer_row(outer: Outer, models: Sequence[str | None]) -> Row:
    values = dict(zip(outer.models, outer.values, strict=True))
    return Row(
        parameter=outer.parameter,
        where=", ".join(outer.tensors),
        values=tuple(values.get(model) for model in models),
    )

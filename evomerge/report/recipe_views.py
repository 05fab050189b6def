"""The recipes of a search as a report shows them: coefficients, routes, and the document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from evomerge.recipe import Recipe, read_recipe
from evomerge.report.coefficients import CoefficientView, show_coefficients
from evomerge.report.figures import Figure, layout_of, safe_text, spec_of, spread_of, titled
from evomerge.report.route_figures import RouteView, show_route
from evomerge.report.slot_history import Depths, SlotHistory, depths_of, slot_history
from evomerge.report.tally import best_of
from evomerge.route import published
from evomerge.search import Selection
from evomerge.sources import Structure
from evomerge.study import STAGES, Study, Trial

# Figures of how routes changed over the generations: slots taken, and depth.
#
# `slot_history.py` counts what is drawn. Both figures have the same axis of generations.


_MARGIN = {"l": 150, "r": 12, "t": 8, "b": 46}  # CSS pixels, as all below
_MARGIN_NARROW = {"l": 96, "r": 8, "t": 8, "b": 46}
_DEPTH_HEIGHT = 230
_LEAST_HEIGHT, _MOST_HEIGHT = 220, 900
_SLOT_HEIGHT = 12
_GROUP_LETTERS = 20


def slots_figure(history: SlotHistory) -> Figure:
    """Shares of candidates that took a slot: a row for each slot, the first one lowest."""
    rows = len(history.switches)
    height = min(max(rows * _SLOT_HEIGHT, _LEAST_HEIGHT), _MOST_HEIGHT)
    height += _MARGIN["t"] + _MARGIN["b"]
    heatmap = go.Heatmap(
        x=list(history.generations),
        y=list(range(rows)),
        z=[list(shares) for shares in history.shares],
        zmin=0.0,
        zmax=1.0,
        colorscale=[[0, "var(--tint)"], [1, "var(--accent)"]],
        showscale=False,
        hovertext=[
            [
                f"{safe_text(switch.model)} layer {switch.layer}, pass {switch.passing}<br>"
                f"generation {number}: {share:.0%}"
                for number, share in zip(history.generations, shares, strict=True)
            ]
            for switch, shares in zip(history.switches, history.shares, strict=True)
        ],
        hoverinfo="text",
    )
    layout = _layout(history.generations, height)
    groups = slot_groups(history)
    layout["yaxis"] |= {
        "range": [-0.5, rows - 0.5],
        "showgrid": False,
        "ticks": "",
        "ticklabelstandoff": 6,
        "tickvals": [(first + last) / 2 for _, first, last in groups],
        "ticktext": [label for label, _, _ in groups],
    }
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": first - 0.5,
            "y1": first - 0.5,
            "line": {"width": 1.5, "color": "var(--ink-2)"},
        }
        for _, first, _ in groups[1:]
    ]
    return Figure(
        title="Layers on the routes",
        description=(
            f"Shares of candidates with each of {rows} slots on their route, over "
            f"{len(history.generations)} generations."
        ),
        height=height,
        spec={**spec_of([heatmap], layout), "narrow": {"margin": _MARGIN_NARROW}},
    )


def slot_groups(history: SlotHistory) -> list[tuple[str, int, int]]:
    """(label, first row, last row) of the slots of one model in one pass, in order."""
    several = history.switches[-1].passing > 1
    groups = []
    row = 0
    for (passing, model), members in groupby(
        history.switches, key=lambda switch: (switch.passing, switch.model)
    ):
        count = len(list(members))
        name = safe_text(model, wrap=_GROUP_LETTERS)
        label = f"{name}<br>pass {passing}" if several else name
        groups.append((label, row, row + count - 1))
        row += count
    return groups


def depths_figure(depths: Sequence[Depths]) -> Figure:
    """Lengths of routes: a dot for each candidate, the mean, and the best candidate's length."""
    numbers = [entry.generation for entry in depths]
    points = [
        (entry.generation, length) for entry in depths for length in sorted(set(entry.lengths))
    ]
    counts = [entry.lengths.count(n) for entry in depths for n in sorted(set(entry.lengths))]
    traces = [
        go.Scatter(
            x=[number for number, _ in points],
            y=[length for _, length in points],
            mode="markers",
            marker={"size": 5, "color": "var(--dot)"},
            hovertext=[
                f"generation {number}: {count} of {length} layers"
                for (number, length), count in zip(points, counts, strict=True)
            ],
            hoverinfo="text",
        ),
        go.Scatter(
            x=numbers,
            y=[entry.best for entry in depths],
            mode="lines+markers",
            line={"width": 1.25, "color": "var(--c2)", "dash": "dot"},
            marker={"size": 6, "symbol": "diamond", "color": "var(--c2)"},
            hovertemplate="generation %{x}, best: %{y} layers<extra></extra>",
        ),
        go.Scatter(
            x=numbers,
            y=[entry.mean for entry in depths],
            mode="lines+markers",
            line={"width": 2.5, "color": "var(--accent)"},
            marker={"size": 6, "color": "var(--accent)"},
            hovertemplate="generation %{x}, mean: %{y:.1f} layers<extra></extra>",
        ),
    ]
    layout = _layout(numbers, _DEPTH_HEIGHT)
    low, high = spread_of([float(length) for _, length in points])
    layout["yaxis"] |= titled("layers on the route") | {"range": [low, high], "nticks": 6}
    means = ", ".join(f"{entry.mean:.1f}" for entry in depths)
    return Figure(
        title="Depth of the routes",
        description=f"Mean number of layers on the routes, by generation: {means}.",
        height=_DEPTH_HEIGHT,
        spec={**spec_of(traces, layout), "narrow": {"margin": _MARGIN_NARROW}},
    )


def _layout(generations: Sequence[int], height: int) -> dict[str, Any]:
    layout = layout_of(height, margin=_MARGIN)
    layout["xaxis"] |= titled("generation") | {
        "range": [generations[0] - 0.5, generations[-1] + 0.5],
        "tickformat": "d",
        "nticks": min(len(generations) + 1, 12),
        "showgrid": False,
        "ticks": "",
    }
    return layout


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A merge of models and its coefficients; view: None where no checkpoint is read."""

    title: str
    label: str
    view: CoefficientView | None


@dataclass(frozen=True, kw_only=True)
class Routes:
    """The routes of a search: one as a picture, and all over the generations.

    title: of the picture. label: the drawn candidate's, as in the record.
    """

    title: str
    label: str
    view: RouteView
    slots: Figure
    depths: Figure


def published_form(recipe: Recipe, structure: Structure | None) -> Recipe:
    """The recipe in mergekit's form, if it has one and the layers are known; else unchanged."""
    if structure is None:
        return recipe
    models = {*recipe.checkpoints, *recipe.stages}
    return published(recipe, dict.fromkeys(models, structure))


def merges_so_far(study: Study, selection: Selection | None) -> list[tuple[str, str, Recipe]]:
    """(title, label, recipe) of the winners of the stages so far, and of the final winner."""
    found: list[tuple[str, str, Recipe]] = []
    if selection is not None:
        stages: dict[str, Recipe] = selection.recipe.stages
    else:
        noted = study.noted(STAGES) or ()
        stages = {e["name"]: read_recipe(e["recipe"], where=e["name"]) for e in noted}
    for place, (name, recipe) in enumerate(stages.items(), start=1):
        found.append((f"Coefficients of stage {place}’s winner", name, recipe))
    if selection is not None:
        found.append(("The winner’s coefficients", selection.winner, selection.recipe))
    return found


def merged_so_far(
    study: Study, selection: Selection | None, structure: Structure | None
) -> list[Merged]:
    """The merges of whole models so far: the winners of the stages, and the final winner."""
    return [
        Merged(
            title=title,
            label=label,
            view=show_coefficients(recipe, structure, study.job.models) if structure else None,
        )
        for title, label, recipe in merges_so_far(study, selection)
        if recipe.route is None
    ]


def routes_of(trials: Sequence[Trial], selection: Selection | None) -> Routes | None:
    """The winner's route, else the best candidate's; None if the search has no routes."""
    history = slot_history(trials)
    if history is None:
        return None
    genomes = [trial for trial in trials if trial.kind == "genome" and trial.recipe.route]
    best = best_of(genomes) or genomes[0]
    if selection is not None and selection.recipe.route is not None:
        title, label, recipe = "The winner’s route", selection.winner, selection.recipe
    else:
        title, label, recipe = "The best candidate’s route", best.label, best.recipe
    return Routes(
        title=title,
        label=label,
        view=show_route(recipe, history.models),
        slots=slots_figure(history),
        depths=depths_figure(depths_of(genomes)),
    )

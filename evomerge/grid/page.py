"""The page of a grid: one HTML file with its table and figures that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from evomerge.evaluate import Interval
from evomerge.grid.outcome import GridOutcome, Row
from evomerge.grid.tables import explanation, grid_markdown, interval_text
from evomerge.report import (
    Figure,
    layout_of,
    one_line,
    safe_text,
    score_text,
    spec_of,
    spread_of,
    titled,
)
from evomerge.study import storage_errors, write_whole
from evomerge.version import __version__

_HEIGHT = 360  # CSS pixels
_MARGIN = {"l": 56, "r": 16, "t": 12, "b": 52}
_COLOURS = 8
"""Number of colours for series on the page, var(--c1) and on; after these they repeat."""
_APART = 0.05
"""Shift on the axis of experts between two methods, so that their bars do not overlap."""

Side = Literal["held_in", "held_out"]


def write_grid_page(outcome: GridOutcome, *, run_dir: Path) -> tuple[Path, Path]:
    """Write grid.md and grid.html into the run directory. Raises StorageError."""
    pages = {"grid.md": grid_markdown(outcome), "grid.html": render_grid(outcome)}
    with storage_errors(run_dir):
        for name, text in pages.items():
            _write(run_dir / name, text)
    return run_dir / "grid.md", run_dir / "grid.html"


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def render_grid(outcome: GridOutcome) -> str:
    """The outcome as one HTML document."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evomerge.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": interval_text, "score": score_text, "line": one_line}
    sides: list[tuple[str, str, Side]] = [
        ("Held-in", "share of the experts' scores", "held_in"),
        ("Held-out", "times the base's score", "held_out"),
    ]
    shown = [
        (title, axis, side)
        for title, axis, side in sides
        if any(getattr(row.normalised, side) is not None for row in outcome.rows)
    ]
    return environment.get_template("grid.html.j2").render(
        plotly_js=get_plotlyjs(),
        version=__version__,
        outcome=outcome,
        alone=[model for model in outcome.models if model.role != "merge"],
        merges=[model for model in outcome.models if model.role == "merge"],
        legend=[
            (name, f"--c{place % _COLOURS + 1}") for place, name in enumerate(_methods(outcome))
        ],
        figures=[normalised_figure(outcome, title, axis, side) for title, axis, side in shown],
        explanation=explanation(outcome),
    )


def normalised_figure(outcome: GridOutcome, title: str, axis: str, side: Side) -> Figure:
    """Normalised scores over the number of experts, a line for each method."""
    methods = _methods(outcome)
    sizes = sorted({row.experts for row in outcome.rows})
    traces, ends = [], [1.0]
    described = []
    for place, method in enumerate(methods):
        points = [
            (row.experts, interval)
            for row in outcome.rows
            if row.method == method and (interval := _side(row, side)) is not None
        ]
        shift = _APART * (place - (len(methods) - 1) / 2)
        traces.append(_line(method, points, shift=shift, colour=place % _COLOURS + 1))
        ends += [end for _, interval in points for end in (interval.low, interval.high)]
        described += [f"{method} of {size}: {score_text(score.value)}" for size, score in points]
    layout = layout_of(_HEIGHT, margin=_MARGIN)
    layout["xaxis"] |= titled("experts merged") | {
        "tickvals": sizes,
        "range": [sizes[0] - 0.5, sizes[-1] + 0.5],
    }
    layout["yaxis"] |= titled(axis) | {"range": list(spread_of(ends))}
    # At 1 a merge scores as much as the model that it is divided by.
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": 1,
            "y1": 1,
            "layer": "below",
            "line": {"width": 1, "dash": "dot", "color": "var(--ink-2)"},
        }
    ]
    return Figure(
        title=title, description="; ".join(described), height=_HEIGHT, spec=spec_of(traces, layout)
    )


def _line(
    method: str, points: Sequence[tuple[int, Interval]], *, shift: float, colour: int
) -> go.Scatter:
    marks: dict[str, Any] = {"color": f"var(--c{colour})"}
    return go.Scatter(
        x=[size + shift for size, _ in points],
        y=[interval.value for _, interval in points],
        mode="lines+markers",
        line={**marks, "width": 2},
        marker={**marks, "size": 8},
        error_y={
            **marks,
            "type": "data",
            "symmetric": False,
            "array": [interval.high - interval.value for _, interval in points],
            "arrayminus": [interval.value - interval.low for _, interval in points],
            "thickness": 1.5,
            "width": 0,
        },
        hovertext=[
            f"{safe_text(method)}, {size} experts<br>{interval_text(interval)}"
            for size, interval in points
        ],
        hoverinfo="text",
    )


def _methods(outcome: GridOutcome) -> list[str]:
    return list(dict.fromkeys(row.method for row in outcome.rows))


def _side(row: Row, side: Side) -> Interval | None:
    return row.normalised.held_in if side == "held_in" else row.normalised.held_out

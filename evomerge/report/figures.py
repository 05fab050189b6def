"""The figures of the report, as plotly draws them.

Colours are CSS variables of the page (`var(--ink)`); the page replaces them by the colours of its
light or dark scheme. Text from a job is escaped here, because plotly reads tags in text.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from evomerge.report.words import one_line, score_text

if TYPE_CHECKING:
    from evomerge.evaluate import Interval

_ROW_HEIGHT = 26  # CSS pixels
_WRAP_LETTERS = 22


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing.

    spec: `data` and `layout` of plotly, and `narrow`: parts of the layout for phones.
    description: what it shows, for those who cannot see it.
    """

    title: str
    description: str
    height: int
    spec: Mapping[str, Any]


def interval_figure(
    title: str,
    rows: Sequence[tuple[str, Interval]],
    *,
    emphasised: str,
    reference: str,
    axis: str,
    extent: tuple[float, float],
) -> Figure:
    """Scores of models with their intervals, one model a row.

    emphasised: the row drawn in the accent colour. reference: a line through all rows marks the
    score of this one. extent: of the score axis; figures to be compared have the same.
    """
    names = [safe_text(name, wrap=_WRAP_LETTERS) for name, _ in rows]
    traces = [
        go.Scatter(
            x=[interval.value],
            y=[shown],
            mode="markers",
            marker={
                "size": 9,
                "color": "var(--accent)" if name == emphasised else "var(--neutral)",
                "symbol": "diamond" if name == emphasised else "circle",
            },
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [interval.high - interval.value],
                "arrayminus": [interval.value - interval.low],
                "color": "var(--accent)" if name == emphasised else "var(--neutral)",
                "thickness": 2,
                "width": 0,
            },
            hovertext=f"{shown}<br>{score_text(interval.value)} "
            f"[{score_text(interval.low)}, {score_text(interval.high)}]",
            hoverinfo="text",
        )
        for (name, interval), shown in zip(rows, names, strict=True)
    ]
    lines = 1 + max(name.count("<br>") for name in names)
    height = 58 + len(rows) * max(_ROW_HEIGHT, 16 * lines)
    layout = layout_of(height, margin={"l": 8, "r": 16, "t": 4, "b": 46})
    layout["xaxis"] |= titled(axis) | {"range": list(extent), "nticks": 6}
    layout["yaxis"] |= {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": names,
        "autorange": "reversed",
        "gridcolor": "rgba(0,0,0,0)",
        "automargin": True,
    }
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": interval.value,
            "x1": interval.value,
            "y0": 0,
            "y1": 1,
            "layer": "below",
            "line": {"width": 1, "dash": "dot", "color": "var(--ink-2)"},
        }
        for name, interval in rows
        if name == reference
    ]
    scores = "; ".join(f"{name} {score_text(interval.value)}" for name, interval in rows)
    return Figure(title=title, description=scores, height=height, spec=spec_of(traces, layout))


def spread_of(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis that leave a margin around the values."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
    return low - margin, high + margin


def titled(text: str) -> dict[str, Any]:
    """The title of an axis, for plotly."""
    return {"title": {"text": safe_text(text), "font": {"size": 12}, "standoff": 8}}


def layout_of(height: int, *, margin: Mapping[str, int]) -> dict[str, Any]:
    """What all figures share: quiet axes, no zooming, the colours of the page."""
    axis = {
        "gridcolor": "var(--grid)",
        "zeroline": False,
        "fixedrange": True,
        "tickfont": {"size": 12},
    }
    return {
        "height": height,
        "margin": dict(margin),
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink-2)"},
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
        "hoverlabel": {
            "bgcolor": "var(--raised)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)", "size": 12},
            "align": "left",
        },
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }


def spec_of(traces: Sequence[go.Scatter | go.Heatmap], layout: Mapping[str, Any]) -> dict[str, Any]:
    """Data and layout, checked by plotly, without the template that it adds."""
    figure = go.Figure(data=list(traces), layout={**layout, "template": "none"}).to_dict()
    return {"data": figure["data"], "layout": {**figure["layout"], "template": {}}}


def safe_text(text: str, *, wrap: int | None = None) -> str:
    """User text for plotly: one line without tags, or several of at most `wrap` letters."""
    line = one_line(text)
    lines = textwrap.wrap(line, wrap) if wrap else [line]
    return "<br>".join(html.escape(part, quote=False) for part in lines)

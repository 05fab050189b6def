"""The figure of a search: candidates in order, their generations, and the baselines as lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from evomerge.report.figures import Figure, layout_of, safe_text, spec_of, spread_of, titled
from evomerge.report.search_series import (
    GenerationPoint,
    Line,
    SearchSeries,
    height_of,
    search_series,
)
from evomerge.report.words import count_text, one_line, score_text
from evomerge.study import Trial

_HEIGHT = 440  # CSS pixels, as all below
_MARGIN = {"l": 56, "r": 168, "t": 12, "b": 52}
_MARGIN_NARROW = {"l": 48, "r": 108, "t": 12, "b": 52}
_STAGE_HEAD = 14
"""Added above the plot for the names of stages."""

_LABEL_GAP = 16
_LABEL_LETTERS, _LABEL_LETTERS_NARROW = 24, 14


def search_figure(
    genomes: Sequence[Trial],
    baselines: Sequence[Trial],
    *,
    parents: Sequence[str],
    stages: Sequence[str] = (),
    shares: bool = False,
) -> Figure:
    """Scores of candidates in order, means and bests of generations, a line for each baseline.

    parents: labels of the baselines that are single models. stages: names of the job's stages.
    shares: whether scores are shares (see score_text); an estimate outside [0, 1] is drawn at the
    nearer end.
    """
    series = search_series(genomes, baselines, alone=parents, shares=shares)
    low, high = spread_of(
        [
            *(dot.height for dot in series.dots),
            *(height_of(line.score, shares) for line in series.lines),
        ]
    )
    count = max(len(genomes), 1)
    ends = (0.5 - 0.01 * count, count + 0.5 + 0.01 * count)
    traces = [
        *(_baseline_line(line, ends) for line in series.lines),
        _candidates(series),
        _failures(series, low + 0.02 * (high - low)),
        *_generation_lines(series),
    ]
    begun = {stage: place for place, stage in series.stages} if stages else {}
    head = _STAGE_HEAD if begun else 0
    marks = [_stage_label(place, stages[stage]) for stage, place in begun.items()]
    layout = layout_of(_HEIGHT + head, margin={**_MARGIN, "t": _MARGIN["t"] + head})
    layout["xaxis"] |= titled("candidate, in order of generation") | {
        "range": list(ends),
        "showticklabels": bool(genomes),
        "tickformat": ",d",
        "nticks": min(count + 1, 10),
    }
    layout["yaxis"] |= titled("combined search score") | {"range": [low, high]}
    layout["shapes"] = [_stage_mark(place) for stage, place in begun.items() if stage > 0]
    layout["annotations"] = [*_line_labels(series.lines, low, high, _LABEL_LETTERS), *marks]
    narrow = {
        "margin": {**_MARGIN_NARROW, "t": _MARGIN_NARROW["t"] + head},
        "annotations": [
            *_line_labels(series.lines, low, high, _LABEL_LETTERS_NARROW),
            *marks,
        ],
    }
    means = ", ".join(score_text(each, shares) for each in series.means) or "none yet"
    return Figure(
        title="Search scores",
        description=f"Search scores of {len(genomes)} candidates; generation means: {means}.",
        height=_HEIGHT + head,
        spec={**spec_of(traces, layout), "narrow": narrow},
    )


def _candidates(series: SearchSeries) -> go.Scatter:
    return go.Scatter(
        x=[dot.place for dot in series.dots],
        y=[dot.height for dot in series.dots],
        mode="markers",
        marker={"size": 5, "color": "var(--dot)"},
        hovertext=[
            _hover_text(dot.candidate, dot.score, dot.items, series.shares) for dot in series.dots
        ],
        hoverinfo="text",
    )


def _failures(series: SearchSeries, foot: float) -> go.Scatter:
    """Crosses at the bottom of the figure for candidates without a score."""
    failed = series.crosses
    return go.Scatter(
        x=[cross.place for cross in failed],
        y=[foot] * len(failed),
        mode="markers",
        marker={"size": 8, "color": "var(--warn)", "symbol": "x-thin-open", "line": {"width": 2}},
        hovertext=[f"{c.candidate} failed<br>{safe_text(c.reason, wrap=40)}" for c in failed],
        hoverinfo="text",
    )


def _generation_lines(series: SearchSeries) -> list[go.Scatter]:
    """Best and mean of each generation, drawn in the middle of its candidates.

    Lines are broken where a stage begins.
    """
    shown: list[GenerationPoint | None] = []
    for _, members in groupby(series.generations, key=lambda generation: generation.stage):
        shown += [*([None] if shown else []), *members]
    x = [each and each.place for each in shown]
    best = go.Scatter(
        x=x,
        y=[each and each.best_height for each in shown],
        mode="lines+markers",
        line={"width": 1.25, "color": "var(--c2)", "dash": "dot"},
        marker={"size": 6, "symbol": "diamond", "color": "var(--c2)"},
        hovertext=[
            each and f"generation {each.number}, best {score_text(each.best, series.shares)}"
            for each in shown
        ],
        hoverinfo="text",
    )
    mean = go.Scatter(
        x=x,
        y=[each and each.mean_height for each in shown],
        mode="lines+markers",
        line={"width": 2.5, "color": "var(--accent)"},
        marker={"size": 6, "color": "var(--accent)"},
        hovertext=[
            each and f"generation {each.number}, mean {score_text(each.mean, series.shares)}"
            for each in shown
        ],
        hoverinfo="text",
    )
    return [best, mean]


def _stage_mark(place: int) -> dict[str, Any]:
    """A line through the figure before the first candidate of a stage."""
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": place - 0.5,
        "x1": place - 0.5,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"width": 1, "dash": "dash", "color": "var(--ink-2)"},
    }


def _stage_label(place: int, name: str) -> dict[str, Any]:
    return {
        "x": place - 0.5,
        "yref": "paper",
        "y": 1,
        "xshift": 4,
        "xanchor": "left",
        "yanchor": "bottom",
        "text": safe_text(_cut(name, _LABEL_LETTERS)),
        "showarrow": False,
        "font": {"size": 12, "color": "var(--ink)"},
    }


def _hover_text(name: str, score: float, items: int, shares: bool = False) -> str:
    counted = count_text(items, "item")
    return f"{safe_text(name)}<br>score {score_text(score, shares)} on {counted}"


def _baseline_line(line: Line, ends: tuple[float, float]) -> go.Scatter:
    return go.Scatter(
        x=list(ends),
        y=[line.score, line.score],
        mode="lines",
        line={
            "width": 1.5 if line.alone else 1,
            "color": "var(--ink)" if line.alone else "var(--line)",
            "dash": "dash" if line.alone else "solid",
        },
        hovertext=_hover_text(line.label, line.score, line.items),
        hoverinfo="text",
    )


def _line_labels(
    lines: Sequence[Line], low: float, high: float, letters: int
) -> list[dict[str, Any]]:
    """Names at the right end of the lines, moved apart where they would overlap."""
    plot_height = _HEIGHT - _MARGIN["t"] - _MARGIN["b"]
    ordered = sorted(lines, key=lambda line: -line.score)
    wanted = [(high - line.score) / (high - low) * plot_height for line in ordered]  # from the top
    return [
        {
            "xref": "paper",
            "x": 1,
            "yref": "y",
            "y": line.score,
            "text": safe_text(_cut(one_line(line.label), letters)),
            "showarrow": True,
            "arrowhead": 0,
            "arrowwidth": 1,
            "arrowcolor": "var(--line)",
            "standoff": 0,
            "ax": 16,
            "ay": place - want,
            "xanchor": "left",
            "align": "left",
            "font": {"size": 12, "color": "var(--ink)" if line.alone else "var(--ink-2)"},
        }
        for line, want, place in zip(
            ordered, wanted, _apart(wanted, gap=_LABEL_GAP, most=plot_height), strict=True
        )
    ]


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _apart(wanted: Sequence[float], *, gap: float, most: float) -> list[float]:
    """Places as near as possible to the wanted ones (ascending), `gap` apart, in [0, most]."""
    groups: list[list[float]] = []  # each a sum of wanted first places, and a count
    for i, place in enumerate(wanted):
        groups.append([place - i * gap, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += count
    firsts = [total / count for total, count in groups for _ in range(int(count))]
    room = max(0.0, most - (len(wanted) - 1) * gap)
    return [min(max(first, 0.0), room) + i * gap for i, first in enumerate(firsts)]

"""The outcome of a grid as tables: for a terminal, and in Markdown to paste into a paper."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.documents import plain
from evomerge.evaluate import Interval
from evomerge.grid.outcome import GridOutcome, ModelOutcome, Row
from evomerge.report import count_text, one_line, score_text

_HEAD = ("method", "experts", "merges", "held-in", "±", "held-out", "±")
_ALONE = ("model alone", "held-in", "held-out")
_LEFT = 1
"""Number of columns from the left that hold words."""


def grid_lines(outcome: GridOutcome) -> list[str]:
    """The outcome for a terminal."""
    return [
        *_aligned([_HEAD, *map(_row, outcome.rows)]),
        "",
        *_aligned([_ALONE, *map(_alone, _models_alone(outcome))]),
        "",
        *explanation(outcome),
    ]


def grid_markdown(outcome: GridOutcome) -> str:
    """The outcome as a Markdown document."""
    merges = [
        (
            one_line(model.label),
            interval_text(model.normalised.held_in),
            interval_text(model.normalised.held_out),
            *(score_text(_mean(model, metric)) for metric in _metrics(outcome)),
        )
        for model in outcome.models
    ]
    parts = [
        f"# {plain(outcome.name)}",
        *_markdown([_HEAD, *map(_row, outcome.rows)]),
        *(f"{plain(line)}  " for line in explanation(outcome)),
        "## Models alone",
        *_markdown([_ALONE, *map(_alone, _models_alone(outcome))]),
        "## Every model and its scores as they are",
        *_markdown([("model", "held-in", "held-out", *_metrics(outcome)), *merges]),
    ]
    text = ""
    for part in parts:
        inside = part.startswith("|") and text.endswith("|\n")
        text += part + "\n" if inside or not text else f"\n{part}\n"
    return text


def explanation(outcome: GridOutcome) -> list[str]:
    """Sentences that explain the numbers; then notes on what is left out of them."""
    items = sum(outcome.items.values())
    noun = "test item" if outcome.split == "test" else "item"
    sentences = [
        "held-in: each task's score divided by that of the expert trained for it, averaged over "
        "the tasks of the merged experts.",
        "held-out: each other task's score divided by the base model's, averaged.",
        f"In brackets 95% intervals over {count_text(items, noun)} of "
        f"{count_text(len(outcome.items), 'task')}; ± is the standard deviation over merges.",
    ]
    if not outcome.held_out:
        del sentences[1]
    return [*sentences, *(f"note: {one_line(note)}" for note in outcome.notes)]


def interval_text(interval: Interval | None) -> str:
    """A normalised score with its interval; a dash where there is none."""
    if interval is None:
        return "–"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _row(row: Row) -> tuple[str, ...]:
    merges = f"{row.merges - row.failed} of {row.merges}" if row.failed else str(row.merges)
    return (
        one_line(row.method),
        str(row.experts),
        merges,
        interval_text(row.normalised.held_in),
        score_text(row.spread_held_in),
        interval_text(row.normalised.held_out),
        score_text(row.spread_held_out),
    )


def _alone(model: ModelOutcome) -> tuple[str, ...]:
    return (
        one_line(model.label),
        interval_text(model.normalised.held_in),
        interval_text(model.normalised.held_out),
    )


def _models_alone(outcome: GridOutcome) -> list[ModelOutcome]:
    return [model for model in outcome.models if model.role != "merge"]


def _metrics(outcome: GridOutcome) -> tuple[str, ...]:
    return (*outcome.held_in, *outcome.held_out)


def _mean(model: ModelOutcome, metric: str) -> float | None:
    task, _, key = metric.partition("/")
    return model.means.get(task, {}).get(key)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    rule = ["---" if column < _LEFT else "---:" for column in range(len(head))]
    return [f"| {' | '.join(map(plain, row))} |" for row in (head, rule, *body)]

"""The end of a search in a terminal: every task's test score, the winner's beside each parent's.

If a parent is above the winner, the cell says by how much, and a terminal shows it in red.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from evomerge.errors import visible
from evomerge.evaluate import ScoreSummary
from evomerge.report.words import one_line, score_text
from evomerge.search import Selection

HEADING = "Test scores by task; in brackets what the winner loses against a parent:"

_ROUNDING = 1e-9
_LOSS = "red"
_LABEL_COLUMNS = 24
_GAP = "  "

Directions = Mapping[str, Mapping[str, bool]]
"""task -> metric -> whether higher is better."""

Column = Sequence[Text]


def show_result(
    selection: Selection,
    metrics: Sequence[tuple[str, str]],
    directions: Directions,
    *,
    console: Console | None = None,
) -> None:
    """Print the table, to stdout unless a console is given; nothing where there is no parent.

    metrics: (task, metric) of the rows, in order. Columns that do not fit side by side are printed
    in blocks.
    """
    out = console or Console(highlight=False)
    won = next(entry for entry in selection.test if entry.role == "winner")
    parents = [entry for entry in selection.test if entry.role == "parent"]
    rows = [(task, metric) for task, metric in metrics if metric in won.tasks.get(task, {})]
    if not parents or not rows:
        return
    out.print(Text(HEADING), soft_wrap=True)
    names = [Text("")] + [Text(_name(task, metric, directions)) for task, metric in rows]
    first = [names, [Text("winner"), *(_score(won, *row) for row in rows)]]
    others = [_parent_column(parent, won, rows, directions) for parent in parents]
    for block in _blocks(first, others, out.width):
        for line in _lines(block):
            out.print(line, soft_wrap=True)


def _name(task: str, metric: str, directions: Directions) -> str:
    lower = "" if _higher(task, metric, directions) else " (lower is better)"
    return visible(one_line(f"{task}/{metric}{lower}"))


def _higher(task: str, metric: str, directions: Directions) -> bool:
    return directions.get(task, {}).get(metric, True)


def _score(summary: ScoreSummary, task: str, metric: str) -> Text:
    interval = summary.tasks.get(task, {}).get(metric)
    return Text(score_text(None if interval is None else interval.value))


def _parent_column(
    parent: ScoreSummary, won: ScoreSummary, rows: Sequence[tuple[str, str]], directions: Directions
) -> Column:
    label = visible(one_line(parent.label))
    if cell_len(label) > _LABEL_COLUMNS:
        label = set_cell_size(label, _LABEL_COLUMNS - 1).rstrip() + "…"
    cells = [Text(label)]
    for task, metric in rows:
        cell = _score(parent, task, metric)
        interval = parent.tasks.get(task, {}).get(metric)
        if interval is not None:
            loss = interval.value - won.tasks[task][metric].value
            loss = loss if _higher(task, metric, directions) else -loss
            if loss > _ROUNDING:
                cell = Text(f"{cell.plain} (−{loss:.3f})", style=_LOSS)
        cells.append(cell)
    return cells


def _width(column: Column) -> int:
    return max(cell.cell_len for cell in column)


def _blocks(
    first: Sequence[Column], others: Sequence[Column], width: int
) -> Sequence[Sequence[Column]]:
    """Blocks of the first columns and as many other columns as fit; at least one other."""
    blocks: list[list[Column]] = []
    for column in others:
        wide = [*(blocks[-1] if blocks else first), column]
        total = len(_GAP) * len(wide) + sum(_width(member) for member in wide)
        if blocks and total <= width:
            blocks[-1].append(column)
        else:
            blocks.append([*first, column])
    return blocks


def _lines(columns: Sequence[Column]) -> list[Text]:
    lines = []
    for cells in zip(*columns, strict=True):
        line = Text()
        for column, cell in zip(columns, cells, strict=True):
            line.append(_GAP)
            line.append_text(cell)
            line.append(" " * (_width(column) - cell.cell_len))
        line.rstrip()
        lines.append(line)
    return lines

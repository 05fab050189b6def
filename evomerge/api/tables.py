"""Tables of test scores, from a record here or from a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evomerge.evaluate import Interval, ScoreSummary
from evomerge.evaluate import read_summary as read_summary

if TYPE_CHECKING:
    import pandas


def score_table(tested: Sequence[ScoreSummary]) -> pandas.DataFrame:
    """A row a model, columns (task/metric, value | low | high); "score" is the combined one."""
    import pandas

    rows = [_cells(summary) for summary in tested]
    columns = list(dict.fromkeys(column for cells in rows for column in cells))
    table = pandas.DataFrame(
        [[cells.get(column) for column in columns] for cells in rows],
        index=pandas.Index([summary.label for summary in tested], name="model"),
        columns=pandas.MultiIndex.from_tuples(columns, names=["metric", ""]) if columns else None,
        dtype=float,
    )
    table.insert(0, ("role", ""), [summary.role for summary in tested])
    return table


def _cells(summary: ScoreSummary) -> Mapping[tuple[str, str], float]:
    scores: dict[str, Interval] = {"score": summary.score}
    for task, metrics in summary.tasks.items():
        for metric, interval in metrics.items():
            scores[f"{task}/{metric}"] = interval
    return {
        (name, part): value
        for name, interval in scores.items()
        for part, value in (
            ("value", interval.value),
            ("low", interval.low),
            ("high", interval.high),
        )
    }

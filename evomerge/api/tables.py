"""Tables of scores and of item results, from a record here or from a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evomerge.evaluate import Interval, ScoreSummary

if TYPE_CHECKING:
    import pandas

    from evomerge.workers import PreparedJob


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


def item_table(parts: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """A row for each result on an item; parts: of a candidate on a task, as `items_of` has them."""
    import pandas

    tables = [
        pandas.DataFrame(
            {
                "candidate": part["candidate"],
                "task": part["task"],
                "item": part["items"],
                "metric": metric,
                "value": values,
            }
        )
        for part in parts
        for metric, values in part["metrics"].items()
    ]
    if not tables:
        return pandas.DataFrame(columns=["candidate", "task", "item", "metric", "value"])
    return pandas.concat(tables, ignore_index=True)


def shown_metrics(preparation: PreparedJob) -> list[dict[str, Any]]:
    """The metrics that the end of a search shows, in plain values: task, metric, higher_is_better.

    Those of objectives and constraints, a group before its tasks, then those of reported tasks.
    """
    objective, suite, job = preparation.objective, preparation.suite, preparation.job
    rows = {
        (shown.task, shown.key): shown.higher_is_better
        for metric in objective.metrics
        for shown in (metric, *metric.leaves)
    }
    for task in job.all_tasks:
        if task not in job.search_tasks:
            for metric, higher_is_better in suite.metrics(task).items():
                rows.setdefault((task, metric), higher_is_better)
    return [
        {"task": task, "metric": metric, "higher_is_better": higher}
        for (task, metric), higher in rows.items()
    ]

"""Commands of `evomerge --server URL` that show what searches have recorded: answers, compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.answers import (
    Differ,
    Gained,
    Item,
    Limit,
    Lost,
    Models,
    OfSplit,
    OfTask,
    names_in,
    show_answers,
)
from evomerge.cli.endings import say_json
from evomerge.cli.options import AsJson
from evomerge.cli.remote import connected
from evomerge.cli.remote_options import JobId

if TYPE_CHECKING:
    from evomerge.evaluate import Interval
    from evomerge.service import ComparedSearch


def answers(
    job_id: JobId,
    lost: Lost = False,
    gained: Gained = False,
    differ: Differ = False,
    task: OfTask = None,
    item: Item = None,
    models: Models = "",
    split: OfSplit = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Show what models answered, side by side: the winner, its parents and the uniform soup."""
    with connected() as server:
        shown = server.job(job_id).shown_answers(
            names_in(models),
            lost=lost,
            gained=gained,
            differ=differ,
            task=task,
            item=item,
            split=split,
            limit=limit,
        )
        show_answers(shown, whole=item is not None, as_json=as_json)


def compare(
    job_ids: Annotated[
        list[str], typer.Argument(metavar="JOB_ID...", help="Searches.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Show searches beside each other: how far, how well, at what cost.

    With --json the means and the bests of their generations too.
    """
    with connected() as server:
        from evomerge.service import compared

        searches = [compared(server.job(job_id)) for job_id in job_ids]
        if as_json:
            say_json([search.to_json() for search in searches])
        else:
            _show(searches)


def _show(searches: Sequence[ComparedSearch]) -> None:
    """A column for each search; on paper and in pipes as wide as it gets."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from evomerge.errors import visible

    names = [search.name for search in searches]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for search in searches:
        name = f"{search.name} {search.id[:6]}" if names.count(search.name) > 1 else search.name
        table.add_column(Text(visible(name)), justify="right")
    for label, cells in _rows(searches):
        table.add_row(Text(visible(label)), *(Text(visible(cell)) for cell in cells))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
    console.print(table)


def _rows(searches: Sequence[ComparedSearch]) -> Iterator[tuple[str, list[str]]]:
    from evomerge.report import duration_text

    yield "job", [search.id for search in searches]
    yield "state", [search.state for search in searches]
    yield "winner, test items", [_score(search.score) for search in searches]
    yield "gain over the best parent", [_gain(search.gain) for search in searches]
    yield "verdict", [search.verdict or "–" for search in searches]
    for label in ("candidates", "failed"):
        yield label, [_count(getattr(search, label)) for search in searches]
    yield (
        "worker time",
        ["–" if s.worker_s is None else duration_text(s.worker_s) for s in searches],
    )
    yield "items", [_count(search.items) for search in searches]
    yield "search space", [search.search_space for search in searches]
    yield "sources", [_count(search.sources) for search in searches]
    tasks = dict.fromkeys(task for search in searches for task in search.tasks)
    for task in tasks:
        yield task, [_score(search.tasks.get(task)) for search in searches]
    for label, key in (("last generation, mean", "mean"), ("last generation, best", "best")):
        yield label, [_last(search, key) for search in searches]


def _score(found: Interval | None) -> str:
    return "–" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _gain(found: Interval | None) -> str:
    from evomerge.search import interval_words

    return "–" if found is None else interval_words(found)


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _last(search: ComparedSearch, key: str) -> str:
    """A score of the last generation that has one; scores are of its own search items."""
    from evomerge.report import score_text

    found = [point[key] for point in search.generations if point[key] is not None]
    return score_text(found[-1] if found else None)

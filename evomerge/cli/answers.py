"""The command `evomerge answers`: what models said, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from evomerge.cli.endings import answering, say, say_json
from evomerge.cli.options import AsJson

if TYPE_CHECKING:
    from evomerge.search import ShownAnswers

Lost = Annotated[bool, typer.Option("--lost", help="Only items that the winner lost.")]
Gained = Annotated[bool, typer.Option("--gained", help="Only items that it gained.")]
Differ = Annotated[
    bool, typer.Option("--differ", help="Only items on which the models do not score the same.")
]
OfTask = Annotated[str | None, typer.Option("--task", help="Only items of this task, or group.")]
Item = Annotated[int | None, typer.Option(help="Only the item with this number, in full length.")]
Models = Annotated[
    str,
    typer.Option(
        metavar="NAME,...",
        help="winner, front, parents, soup, base, or names of models; the first is compared "
        "with the best parent, or else with the second.",
    ),
]
OfSplit = Annotated[
    Literal["search", "validation", "test"] | None,
    typer.Option(
        "--split",
        help="The items: test, or before the end of the search those of baselines.",
    ),
]
Limit = Annotated[int, typer.Option(min=1, help="The first items only.")]


def answers(
    run_dir: Annotated[Path, typer.Argument(help="Directory of a search.", show_default=False)],
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
    with answering():
        from evomerge.api import answer_sheet

        sheet = answer_sheet(
            run_dir,
            names_in(models),
            lost=lost,
            gained=gained,
            differ=differ,
            task=task,
            item=item,
            split=split,
        )
        show_answers(sheet.shown(0, limit), whole=item is not None, as_json=as_json)


def names_in(models: str) -> list[str]:
    """The names of `--models`."""
    return [name.strip() for name in models.split(",") if name.strip()]


def show_answers(shown: ShownAnswers, *, whole: bool, as_json: bool) -> None:
    """Print answers; whole: in full length."""
    if as_json:
        say_json({**shown.to_json(), "more": shown.total - len(shown.items)})
        return
    from evomerge.report import answer_lines

    for line in answer_lines(shown, whole=whole):
        say(line)

"""The command `evomerge answers`: what models said, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evomerge.cli.endings import answering, say, say_json


def answers(
    run_dir: Annotated[Path, typer.Argument(help="Directory of a search.", show_default=False)],
    lost: Annotated[bool, typer.Option("--lost", help="Only items that the winner lost.")] = False,
    gained: Annotated[bool, typer.Option("--gained", help="Only items that it gained.")] = False,
    differ: Annotated[
        bool, typer.Option("--differ", help="Only items on which the models do not score the same.")
    ] = False,
    task: Annotated[str | None, typer.Option(help="Only items of this task, or group.")] = None,
    item: Annotated[
        int | None, typer.Option(help="Only the item with this number, in full length.")
    ] = None,
    models: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="winner, front, parents, soup, base, or names of models; the first is compared "
            "with the best parent, or else with the second.",
        ),
    ] = "",
    split: Annotated[
        Literal["search", "validation", "test"] | None,
        typer.Option(help="The items: test, or before the end of the search those of baselines."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The first items only.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show what models answered, side by side: the winner, its parents and the uniform soup."""
    with answering():
        from evomerge.api import answer_sheet

        sheet = answer_sheet(
            run_dir,
            [name.strip() for name in models.split(",") if name.strip()],
            lost=lost,
            gained=gained,
            differ=differ,
            task=task,
            item=item,
            split=split,
        )
        if as_json:
            shown = sheet.first(limit)
            say_json({**shown.to_json(), "more": len(sheet.items) - len(shown.items)})
            return
        from evomerge.report import answer_lines

        for line in answer_lines(sheet, limit=limit, whole=item is not None):
            say(line)

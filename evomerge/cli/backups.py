"""The commands `evomerge backup make` and `restore`, for the embedded database of a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.endings import answering, say
from evomerge.cli.serving import DATA, DataOption

group = typer.Typer(
    help="Back up the database of a service, and restore it.",
    no_args_is_help=True,
)


@group.command("make")
def make(
    out: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    data: DataOption = DATA,
) -> None:
    """Copy the database as it is at this moment; servers and jobs go on."""
    with answering():
        from evomerge.service import ServiceSettings, back_up, open_existing

        with open_existing(ServiceSettings(data=data.absolute())) as database:
            say(f"wrote {back_up(database, out.absolute())}")


@group.command("restore")
def restore_backup(
    backup: Annotated[Path, typer.Argument(help="A backup.", show_default=False)],
    data: DataOption = DATA,
) -> None:
    """Put a backup in the place of the database, while no server and no job runs."""
    with answering():
        from evomerge.service import ServiceSettings, restore

        kept = restore(backup.absolute(), ServiceSettings(data=data.absolute()))
        say(f"restored {backup}")
        if kept is not None:
            say(f"the database that was there before is {kept}")

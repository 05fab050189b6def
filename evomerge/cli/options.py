"""Arguments and options that several commands have, and the words that they allow."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class SplitName(enum.StrEnum):
    """The splits of a task's items on the command line."""

    search = "search"
    validation = "validation"
    test = "test"


class CalibrationDType(enum.StrEnum):
    """Dtypes in which gradients of language models do not underflow."""

    float32 = "float32"
    bfloat16 = "bfloat16"


JobFile = Annotated[Path, typer.Argument(help="The job file.", show_default=False)]
GridFile = Annotated[
    Path, typer.Argument(metavar="GRID", help="The grid file.", show_default=False)
]
RunDir = Annotated[Path, typer.Argument(help="Directory of a search.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the job: budget.candidates=400."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Join this Ray cluster instead of starting workers here.", metavar="ADDRESS"),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[:OPTION=VALUE,...]",
        help="Show it in tensorboard, wandb, mlflow or trackio too; may be repeated.",
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Run the code that the job names, even if another user started the run.",
    ),
]
AsAdapter = Annotated[
    bool,
    typer.Option(
        "--as-adapter",
        help="Write one PEFT LoRA adapter over the base instead of a checkpoint.",
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        metavar="R",
        help="The adapter's largest rank; if the merge is no sum of adapters, the nearest adapter "
        "of this rank is written, and its error printed.",
    ),
]
Within = Annotated[
    float,
    typer.Option(help="Wanted half width of a score's 95% interval; tells the items needed."),
]
Timing = Annotated[
    bool, typer.Option("--timing/--no-timing", help="Time the base for about 20 seconds.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

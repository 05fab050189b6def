"""Arguments and options that commands share, and the words that some of them take."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class SplitName(enum.StrEnum):
    """The splits of a task's items, as the command line names them."""

    search = "search"
    validation = "validation"
    test = "test"


class CalibrationDType(enum.StrEnum):
    """Dtypes that gradients of language models do not underflow in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


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
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Run the code that the job names, though another began the run."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

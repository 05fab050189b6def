"""The command that computes statistics of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.endings import answering, say, say_note
from evomerge.cli.options import CalibrationDType, RayAddress


def calibrate(
    models: Annotated[
        list[str],
        typer.Argument(help="Model folders, hub ids or adapters.", show_default=False),
    ],
    text: Annotated[
        Path,
        typer.Option(help="UTF-8 text, or .jsonl with one text a line.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to keep the statistics in.", show_default=False)
    ],
    fisher: Annotated[
        bool, typer.Option("--fisher", help="Only what fisher and gradient_matching need.")
    ] = False,
    inputs: Annotated[bool, typer.Option("--inputs", help="Only what regmean needs.")] = False,
    sequences: Annotated[int, typer.Option(help="The most sequences to read.")] = 128,
    tokens: Annotated[
        int, typer.Option(help="Tokens of a sequence; at most the model's context.")
    ] = 512,
    seed: Annotated[int, typer.Option(help="Seed of the draw, if the text has more.")] = 0,
    batch: Annotated[int, typer.Option(help="Sequences read at once; fewer take less memory.")] = 4,
    dtype: Annotated[
        CalibrationDType, typer.Option(help="dtype of the model while it reads.")
    ] = CalibrationDType.float32,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a model's own code run.")
    ] = False,
    ray_address: RayAddress = None,
) -> None:
    """Compute once the statistics of models that fisher, gradient_matching and regmean need.

    Give each model text of its own task: run this again with another --text.

    Existing statistics for the same weights, text and options are kept.

    A recipe names the folder in its block: `evomerge: {statistics: FOLDER}`.
    """
    with answering():
        from evomerge.api import calibrate as compute
        from evomerge.calibrate import CalibrationProgress

        with CalibrationProgress() as progress:
            compute(
                models,
                text,
                out,
                fisher=fisher or not inputs,
                inputs=inputs or not fisher,
                sequences=sequences,
                tokens=tokens,
                seed=seed,
                batch=batch,
                dtype=dtype.value,
                device=device,
                trust_remote_code=trust_remote_code,
                say=lambda written: say(written.line()),
                progress=progress,
                note=say_note,
                ray_address=ray_address,
            )

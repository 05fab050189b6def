"""The command that computes statistics of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.endings import answering, say
from evomerge.cli.options import CalibrationDType

Fisher = Annotated[
    bool, typer.Option("--fisher", help="Only what fisher and gradient_matching need.")
]
Inputs = Annotated[bool, typer.Option("--inputs", help="Only what regmean needs.")]
Sequences = Annotated[int, typer.Option(help="The most sequences to read.")]
Tokens = Annotated[int, typer.Option(help="Tokens of a sequence; at most the model's context.")]
Seed = Annotated[int, typer.Option(help="Seed of the draw, if the text has more.")]
Batch = Annotated[int, typer.Option(help="Sequences read at once; fewer take less memory.")]
DType = Annotated[CalibrationDType, typer.Option(help="dtype of the model while it reads.")]
RunsOn = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
TrustModels = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let a model's own code run.")
]


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
    fisher: Fisher = False,
    inputs: Inputs = False,
    sequences: Sequences = 128,
    tokens: Tokens = 512,
    seed: Seed = 0,
    batch: Batch = 4,
    dtype: DType = CalibrationDType.float32,
    device: RunsOn = "auto",
    trust_remote_code: TrustModels = False,
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
            )

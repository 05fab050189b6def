"""Commands of `evomerge --server URL`: check, grid, evaluate and calibrate as jobs of a server.

Their words and what they print are those of the commands here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.calibration import (
    Batch,
    DType,
    Fisher,
    Inputs,
    RunsOn,
    Seed,
    Sequences,
    Tokens,
    TrustModels,
)
from evomerge.cli.endings import say
from evomerge.cli.options import (
    AsJson,
    CalibrationDType,
    Devices,
    GridFile,
    JobFile,
    Overrides,
    Price,
    SplitName,
    Timing,
    Track,
    Within,
)
from evomerge.cli.remote import check_free, connected
from evomerge.cli.remote_options import (
    Detach,
    MaxDuration,
    Name,
    NotBefore,
    Priority,
    Project,
    Retries,
    queue_options,
)
from evomerge.cli.remote_results import go_on
from evomerge.errors import InputError


def check(
    job: JobFile,
    overrides: Overrides = None,
    within: Within = 0.05,
    timing: Timing = True,
    devices: Devices = None,
    price: Price = None,
    project: Project = None,
    name: Name = None,
    priority: Priority = None,
    not_before: NotBefore = None,
    max_duration: MaxDuration = None,
    retries: Retries = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Check a job on the server as a search does, and show what it would score, how long.

    Exit codes: 0 a search accepts the job, 2 it refuses it.
    """
    with connected() as server:
        options = queue_options(
            project=project,
            name=name,
            priority=priority,
            not_before=not_before,
            max_duration=max_duration,
            retries=retries,
        )
        from evomerge.job import read_prices

        made = server.check(
            job,
            set=overrides,
            within=within,
            timing=timing,
            devices=devices,
            prices=read_prices(price),
            **options,
        )
        go_on(server, made, detach=detach, as_json=as_json)


def grid(
    file: GridFile,
    overrides: Overrides = None,
    project: Project = None,
    name: Name = None,
    priority: Priority = None,
    not_before: NotBefore = None,
    max_duration: MaxDuration = None,
    retries: Retries = None,
    track: Track = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Compare merge methods by how many experts they merge, with normalised scores."""
    with connected() as server:
        options = queue_options(
            project=project,
            name=name,
            priority=priority,
            not_before=not_before,
            max_duration=max_duration,
            retries=retries,
            track=track,
        )
        made = server.grid(file, set=overrides, **options)
        go_on(server, made, detach=detach, as_json=as_json)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A model as the server has it, job:ID for an export there, or a recipe file here.",
            show_default=False,
        ),
    ],
    job: Annotated[Path, typer.Argument(help="The job with the tasks.", show_default=False)],
    split: Annotated[SplitName, typer.Option(help="The items to score on.")] = SplitName.test,
    project: Project = None,
    name: Name = None,
    priority: Priority = None,
    not_before: NotBefore = None,
    max_duration: MaxDuration = None,
    retries: Retries = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Score one model, or the merge of a recipe, on the tasks of a job."""
    with connected() as server:
        options = queue_options(
            project=project,
            name=name,
            priority=priority,
            not_before=not_before,
            max_duration=max_duration,
            retries=retries,
        )
        made = server.evaluate(model, job, split=split.value, **options)
        go_on(server, made, detach=detach, as_json=as_json, model=model)


def calibrate(
    models: Annotated[
        list[str],
        typer.Argument(help="Models as the server has them.", show_default=False),
    ],
    text: Annotated[
        str,
        typer.Option(
            help="UTF-8 text on the server, or .jsonl with one text a line.", show_default=False
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to download the statistics to.")] = None,
    fisher: Fisher = False,
    inputs: Inputs = False,
    sequences: Sequences = 128,
    tokens: Tokens = 512,
    seed: Seed = 0,
    batch: Batch = 4,
    dtype: DType = CalibrationDType.float32,
    device: RunsOn = "auto",
    trust_remote_code: TrustModels = False,
    project: Project = None,
    name: Name = None,
    priority: Priority = None,
    not_before: NotBefore = None,
    max_duration: MaxDuration = None,
    retries: Retries = None,
    detach: Detach = False,
) -> None:
    """Compute once the statistics of models that fisher, gradient_matching and regmean need.

    The server keeps them: a job names them in `models.statistics`, as the last line says.
    """
    with connected() as server:
        if out is not None and detach:
            raise InputError("--out: with --detach nothing is downloaded; give one of them")
        if out is not None:
            check_free(out)
        options = queue_options(
            project=project,
            name=name,
            priority=priority,
            not_before=not_before,
            max_duration=max_duration,
            retries=retries,
        )
        made = server.calibrate(
            models,
            text,
            fisher=fisher or not inputs,
            inputs=inputs or not fisher,
            sequences=sequences,
            tokens=tokens,
            seed=seed,
            batch=batch,
            dtype=dtype.value,
            device=device,
            trust_remote_code=trust_remote_code,
            **options,
        )
        go_on(server, made, detach=detach)
        if out is not None:
            made.download(out)
            say(f"downloaded: {out}")

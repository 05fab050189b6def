"""The commands. Everything heavy is imported inside them, after all that can be refused without it.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done; 2 bad input, in one line;
3 ended with no candidate better than the best parent, or no front than the parents'; 130
interrupted.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from evomerge import __version__
from evomerge.cli.endings import answering, say_note
from evomerge.cli.options import (
    AsJson,
    CalibrationDType,
    Overrides,
    RayAddress,
    RunDir,
    SplitName,
    TrustCode,
)
from evomerge.cli.screen import say, say_json
from evomerge.errors import EvomergeError, RunError

app = typer.Typer(
    name="evomerge",
    help="Evolutionary search for the best merge of fine-tuned language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        say(__version__)
        raise typer.Exit


@app.command()
def search(
    job: Annotated[Path, typer.Argument(help="The job file.", show_default=False)],
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to keep the search; runs/NAME if not given.")
    ] = None,
    overrides: Overrides = None,
    ray_address: RayAddress = None,
) -> None:
    """Launch a search: baselines, generations, then the final selection.

    Exit codes: 0 a winner above the best parent, 2 bad input, 3 none above it, 130 interrupted.
    """
    with answering():
        from evomerge.job import load_job

        spec = load_job(job, overrides=overrides or ())
        from evomerge.cli.first_checks import check_names_of
        from evomerge.study import create_study, refuse_existing

        where = run_dir or Path("runs") / spec.name
        refuse_existing(where)
        check_names_of(spec)
        from evomerge.cli.searching import search_job
        from evomerge.preparation import facts_of, pin, prepare
        from evomerge.workers.opening import check_models, check_workers

        check_workers(spec.compute, ray_address=ray_address)
        _say_checking()
        preparation = prepare(pin(spec))
        check_models(preparation)
        directions = preparation.objective.directions
        facts = facts_of(preparation)
        study = create_study(where, preparation.job, directions=directions, facts=facts)
        search_job(study, preparation, ray_address)


@app.command()
def resume(
    run_dir: RunDir,
    overrides: Overrides = None,
    ray_address: RayAddress = None,
    trust_code: TrustCode = False,
) -> None:
    """Go on with a search from its first candidate without a result."""
    with answering():
        from evomerge.study import check_trusted, resume_study
        from evomerge.study.kind import refuse_grid

        refuse_grid(run_dir)
        check_trusted(run_dir, trust=trust_code)
        study = resume_study(run_dir, overrides=tuple(overrides or ()))
        from evomerge.cli.searching import search_job
        from evomerge.preparation import prepare
        from evomerge.workers.opening import check_models, check_workers

        check_workers(study.job.compute, ray_address=ray_address)
        _say_checking()
        preparation = prepare(study.job)
        check_models(preparation)
        search_job(study, preparation, ray_address)


@app.command()
def grid(
    file: Annotated[
        Path, typer.Argument(metavar="GRID", help="The grid file.", show_default=False)
    ],
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to keep the grid; runs/NAME if not given.")
    ] = None,
    overrides: Overrides = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
) -> None:
    """Compare merge methods by how many experts they merge, with normalised scores.

    Run it again to go on after an interrupt, or with more methods, sizes or seeds: what has been
    scored is not scored again.
    """
    with answering():
        from evomerge.grid import load_grid

        asked = load_grid(file, overrides=overrides or ())
        from evomerge.cli.first_checks import check_names_of
        from evomerge.study.kind import refuse_search

        where = run_dir or Path("runs") / asked.name
        refuse_search(where)
        if (where / "job.yaml").exists() and file.resolve().parent == where.resolve():
            from evomerge.study.ownership import check_own

            check_own(where, asked.job(), trust=trust_code)
        check_names_of(asked.job())
        from evomerge.cli.gridding import run_grid, show_grid
        from evomerge.grid import check_grid, pin_grid
        from evomerge.preparation import prepare
        from evomerge.workers.opening import check_models, check_workers

        check_workers(asked.compute, ray_address=ray_address)
        _say_checking()
        spec = pin_grid(asked)
        preparation = prepare(spec.job())
        check_grid(spec, preparation)
        check_models(preparation)
        changed = "".join(f" --set {shlex.quote(override)}" for override in overrides or ())
        again = f"evomerge grid {file} --run-dir {where}{changed}"
        outcome = run_grid(spec, preparation, where, ray_address, again=again)
        if as_json:
            say_json(outcome.to_json())
        else:
            show_grid(outcome, where)


@app.command()
def status(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Say how far a search is, also while it runs."""
    with answering():
        from evomerge.report.status import show_status, status_of
        from evomerge.study import read_study
        from evomerge.study.kind import refuse_grid

        refuse_grid(run_dir)
        with read_study(run_dir) as study:
            said = status_of(study)
        if as_json:
            say_json(said.to_json())
        else:
            show_status(said)


@app.command()
def export(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(help="Folder to make for the model.", show_default=False)],
    trial: Annotated[
        str | None,
        typer.Option(help="Export this candidate instead of the winner, e.g. g0012-i003."),
    ] = None,
    point: Annotated[
        str | None,
        typer.Option(
            help="Of a front: a point by name, by what the tasks weigh (TASK=0.7,OTHER=0.3), or by "
            "what it must reach ('TASK>=0.9')."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Load and score the folder with stock tools.")
    ] = False,
    trust_code: TrustCode = False,
) -> None:
    """Write the winner, or a point of the front: recipe, checkpoint, model card, manifest."""
    with answering():
        from evomerge.candidate import CandidateKey
        from evomerge.outcome import chosen_outcome
        from evomerge.study import check_trusted, read_study
        from evomerge.study.kind import refuse_grid

        refuse_grid(run_dir)
        check_trusted(run_dir, trust=trust_code)
        with read_study(run_dir) as study:
            key = None if trial is None else CandidateKey.parse(trial)
            if trial is not None and point is not None:
                raise RunError("--point: --trial names a candidate already; give one of them")
            chosen = chosen_outcome(study, point) if key is None else None
            from evomerge.export import check_free, export_winner
            from evomerge.preparation import prepare

            check_free(out)
            preparation = prepare(study.job)
            report = export_winner(
                preparation,
                study,
                chosen,
                out,
                trial=key,
                verify=verify,
                say=lambda line: say(line, err=True),
            )
        for note in report.weights.notes:
            say_note(note)
        for line in report.lines():
            say(line)
        if not report.verified:
            raise typer.Exit(EvomergeError.exit_code)


@app.command()
def calibrate(
    models: Annotated[
        list[str],
        typer.Argument(help="Model folders, hub ids or adapters.", show_default=False),
    ],
    text: Annotated[
        Path,
        typer.Option(help="UTF-8 text, or .jsonl with a text a line.", show_default=False),
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
    seed: Annotated[int, typer.Option(help="Of the draw where the text has more.")] = 0,
    batch: Annotated[int, typer.Option(help="Sequences read at once; fewer take less memory.")] = 4,
    dtype: Annotated[
        CalibrationDType, typer.Option(help="Of the model while it reads.")
    ] = CalibrationDType.float32,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a model's own code run.")
    ] = False,
) -> None:
    """Compute once what fisher, gradient_matching and regmean need to know of models.

    Give each model text of its own task: run this again with another --text.

    What is there for the same weights, text and options is kept.

    A recipe names the folder in its block: `evomerge: {statistics: FOLDER}`.
    """
    with answering():
        from evomerge.calibrate import Calibration, CalibrationProgress
        from evomerge.calibrate import calibrate as compute

        calibration = Calibration(
            fisher=fisher or not inputs,
            inputs=inputs or not fisher,
            sequences=sequences,
            tokens=tokens,
            seed=seed,
            batch=batch,
            dtype=dtype.value,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        with CalibrationProgress() as progress:
            for written in compute(models, text, out, calibration, progress):
                say(written.line())


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or mergekit YAML.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to make for the model.", show_default=False)],
) -> None:
    """Execute a recipe: the same recipe always gives the same bytes."""
    with answering():
        from evomerge.cli.first_checks import check_models_of
        from evomerge.recipe import load_recipe

        loaded = load_recipe(recipe)
        check_models_of(loaded)
        from evomerge.export import merge_recipe

        weights = merge_recipe(loaded, out, say=say_note)
        for note in weights.notes:
            say_note(note)
        say(f"model: {out}")


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A model folder, hub id or recipe file.", show_default=False)
    ],
    job: Annotated[Path, typer.Argument(help="The job to score it by.", show_default=False)],
    split: Annotated[SplitName, typer.Option(help="Which items.")] = SplitName.test,
    as_json: AsJson = False,
) -> None:
    """Score one model, or the merge of a recipe, on the tasks of a job."""
    with answering():
        from evomerge.cli.first_checks import check_names_of
        from evomerge.job import load_job

        spec = load_job(job)
        check_names_of(spec)
        from evomerge.assessing import evaluate_model

        standing = evaluate_model(model, spec, split=split.value, say=say_note)
        if as_json:
            say_json(standing.to_json())
            return
        say(f"{model}: all {split.value} items; in brackets 95% intervals")
        for line in standing.lines():
            say(line)


@app.command()
def report(
    run_dir: RunDir,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it; RUN_DIR/report.html if not given.")
    ] = None,
) -> None:
    """Write one HTML file that shows the whole search."""
    with answering():
        from evomerge.study import read_study
        from evomerge.study.kind import refuse_grid

        refuse_grid(run_dir)
        with read_study(run_dir) as study:
            from evomerge.report.html import write_report
            from evomerge.sources import open_source

            structure = open_source(study.job.models.base, where="models.base").structure
            path = write_report(study, structure=structure, out=out or run_dir / "report.html")
        say(f"report: {path}")


def _say_checking() -> None:
    """A line for people while nothing else shows; programs and logs get results alone."""
    if sys.stderr.isatty():
        say("Checking models, tasks and search space ...", err=True)


def main() -> None:
    """Entry point of the console command."""
    # The libraries' own progress bars would run through ours; this must come before they load.
    os.environ.setdefault("TQDM_DISABLE", "1")
    app()

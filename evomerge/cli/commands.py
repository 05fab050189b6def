"""The commands. They import large libraries late, after the checks that need none of them.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done; 2 bad input, in one line;
3 no candidate is better than the best parent, or no front is better than the parents' front; 130
interrupted.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.answers import answers
from evomerge.cli.backups import group as backup_group
from evomerge.cli.calibration import calibrate
from evomerge.cli.endings import (
    NO_GAIN,
    answering,
    interruptible,
    leave_quickly,
    run,
    say,
    say_error,
    say_json,
    say_note,
    shown_path,
)
from evomerge.cli.imports import import_file
from evomerge.cli.interview import init
from evomerge.cli.lists import lists
from evomerge.cli.options import (
    AsAdapter,
    AsJson,
    Devices,
    GridFile,
    JobFile,
    Overrides,
    Price,
    Public,
    Push,
    Rank,
    RayAddress,
    RunDir,
    SplitName,
    Timing,
    Track,
    TrustCode,
    Within,
)
from evomerge.cli.progress import SearchScreen
from evomerge.cli.remote import remote, take_server, watch_url
from evomerge.cli.remote_copies import clone
from evomerge.cli.remote_copies import import_file as import_for_server
from evomerge.cli.remote_kinds import calibrate as calibrate_there
from evomerge.cli.remote_kinds import check as check_there
from evomerge.cli.remote_kinds import evaluate as evaluate_there
from evomerge.cli.remote_kinds import grid as grid_there
from evomerge.cli.remote_records import answers as answers_there
from evomerge.cli.remote_records import compare
from evomerge.cli.remote_tasks import group as remote_task_group
from evomerge.cli.repairs import repair
from evomerge.cli.serving import serve
from evomerge.cli.tasks import group as task_group
from evomerge.cli.tokens import group as token_group
from evomerge.errors import EvomergeError, InputError
from evomerge.startup import begin_loading
from evomerge.version import __version__

app = typer.Typer(
    name="evomerge",
    help="Evolutionary search for the best merge of fine-tuned language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.add_typer(lists, name="list")
app.command()(init)
app.command("import")(import_file)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Run the command on a server; give it first."),
    ] = None,
) -> None:
    if version:
        say(__version__)
        raise typer.Exit
    if server is not None:
        with answering():
            raise InputError(f"--server {server}: give it before all other options")


@app.command()
def check(
    job: JobFile,
    overrides: Overrides = None,
    within: Within = 0.05,
    timing: Timing = True,
    devices: Devices = None,
    price: Price = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Check a job as a search does, and show what it would score, how long, with what memory.

    Nothing is written. Exit codes: 0 a search accepts the job, 2 it refuses it.
    """
    with answering():
        from evomerge.api import check as look
        from evomerge.cli.progress import show_check, show_checking
        from evomerge.job import read_prices

        report = look(
            job,
            set=overrides,
            within=within,
            timing=timing,
            observe=show_checking,
            say=say_note,
            ray_address=ray_address,
            devices=devices,
            prices=read_prices(price),
        )
        show_check(report, as_json=as_json)


@app.command()
def search(
    job: JobFile,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to keep the search; runs/NAME if not given.")
    ] = None,
    overrides: Overrides = None,
    track: Track = None,
    ray_address: RayAddress = None,
) -> None:
    """Launch a search: baselines, generations, then the final selection.

    Exit codes: 0 a winner above the best parent, 2 bad input, 3 none above it, 130 interrupted.
    """
    with answering(), SearchScreen() as screen:
        from evomerge.api import search as launch

        result = launch(
            job, run_dir, set=overrides, observe=screen, track=track, ray_address=ray_address
        )
        raise typer.Exit(0 if result.better else NO_GAIN)


@app.command()
def resume(
    run_dir: RunDir,
    overrides: Overrides = None,
    track: Track = None,
    ray_address: RayAddress = None,
    trust_code: TrustCode = False,
) -> None:
    """Continue a search from its first candidate without a result."""
    with answering(), SearchScreen() as screen:
        from evomerge.api import resume as go_on

        result = go_on(
            run_dir,
            set=overrides,
            observe=screen,
            track=track,
            ray_address=ray_address,
            trust_code=trust_code,
        )
        raise typer.Exit(0 if result.better else NO_GAIN)


@app.command()
def grid(
    file: GridFile,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to keep the grid; runs/NAME if not given.")
    ] = None,
    overrides: Overrides = None,
    track: Track = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
) -> None:
    """Compare merge methods by how many experts they merge, with normalised scores.

    Run it again to continue after an interrupt, or with more methods, sizes or seeds. Nothing is
    scored twice.
    """
    with answering():
        from evomerge.api import grid as launch
        from evomerge.cli.progress import grid_screen, show_checking, show_grid

        changed = "".join(f" --set {shlex.quote(override)}" for override in overrides or ())
        where = f" --run-dir {run_dir}" if run_dir else ""
        with interruptible(f"evomerge grid {file}{where}{changed}"):
            outcome = launch(
                file,
                run_dir,
                set=overrides,
                observe=show_checking,
                say=say_error,
                watch=grid_screen,
                track=track,
                ray_address=ray_address,
                trust_code=trust_code,
            )
        if as_json:
            say_json(outcome.to_json())
        else:
            show_grid(outcome)
            place = run_dir or Path("runs") / outcome.name
            say(f"tables: {place / 'grid.md'}, figures: {place / 'grid.html'}")
            say(f"next: evomerge merge {place / 'recipes' / 'CANDIDATE.yaml'} --out DIR")


@app.command()
def status(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Show how far a search is, also while it runs."""
    with answering():
        from evomerge.report import show_status, status_of
        from evomerge.study import read_study, refuse_grid

        refuse_grid(run_dir)
        with read_study(run_dir) as study:
            state = status_of(study)
        if as_json:
            say_json(state.to_json())
        else:
            show_status(state)


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
            help="A point of a front: its name, weights of the tasks (TASK=0.7,OTHER=0.3), or "
            "scores that it must reach ('TASK>=0.9')."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Load and score the folder with stock tools.")
    ] = False,
    as_adapter: AsAdapter = False,
    rank: Rank = None,
    push: Push = None,
    public: Public = False,
    trust_code: TrustCode = False,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Run --verify on this Ray cluster.", metavar="ADDRESS"),
    ] = None,
) -> None:
    """Write the winner, or a point of the front: recipe, checkpoint, model card, manifest."""
    with answering():
        from evomerge.api import export as deliver
        from evomerge.cli.progress import show_export

        report = deliver(
            run_dir,
            out,
            trial=trial,
            point=point,
            verify=verify,
            as_adapter=as_adapter,
            rank=rank,
            push=push,
            public=public,
            trust_code=trust_code,
            ray_address=ray_address,
            say=say_error,
        )
        show_export(report)
        if not report.verified:
            raise typer.Exit(EvomergeError.exit_code)


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or mergekit YAML.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to make for the model.", show_default=False)],
    as_adapter: AsAdapter = False,
    rank: Rank = None,
) -> None:
    """Execute a recipe: the same recipe always gives the same bytes."""
    with answering():
        from evomerge.api import merge as execute

        weights = execute(recipe, out, as_adapter=as_adapter, rank=rank, say=say_note)
        for note in weights.notes:
            say_note(note)
        if weights.adapter is None:
            say(f"model: {out}")
        else:
            for line in (f"adapter: {out}", *weights.adapter.lines()):
                say(line)
        leave_quickly()


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A model folder, hub id or recipe file.", show_default=False)
    ],
    job: Annotated[Path, typer.Argument(help="The job with the tasks.", show_default=False)],
    split: Annotated[SplitName, typer.Option(help="The items to score on.")] = SplitName.test,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Score one model, or the merge of a recipe, on the tasks of a job."""
    with answering():
        from evomerge.api import evaluate as score

        summary = score(model, job, split=split.value, say=say_note, ray_address=ray_address)
        if as_json:
            say_json(summary.to_json())
            return
        say(f"{model}: all {split.value} items; in brackets 95% intervals")
        for line in summary.lines():
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
        from evomerge.api import report as write

        say(f"report: {shown_path(write(run_dir, out))}")


app.command()(answers)
app.command()(repair)
app.command()(calibrate)
app.add_typer(task_group)
app.command()(serve)
app.command("watch")(watch_url)
app.add_typer(token_group, name="token")
app.add_typer(backup_group, name="backup")
for _command in (
    *(check_there, grid_there, evaluate_there, calibrate_there),
    *(answers_there, compare, clone),
):
    remote.command()(_command)
remote.command("import")(import_for_server)
remote.add_typer(remote_task_group)


def main() -> None:
    """Entry point of the console command."""
    # The libraries' own progress bars would disturb ours; this must be set before they load.
    os.environ.setdefault("TQDM_DISABLE", "1")
    begin_loading()
    rest = take_server(sys.argv[1:])
    if rest is None:
        run(app)
        return
    sys.argv[1:] = rest
    run(remote)

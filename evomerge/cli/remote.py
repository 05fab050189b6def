"""The commands of `evomerge --server URL ...`: words and exit codes as for searches here."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evomerge.cli.endings import NO_GAIN, answering, interruptible, say, say_error, say_json
from evomerge.cli.options import AsAdapter, AsJson, JobFile, Overrides, Public, Push, Rank, Track
from evomerge.errors import EvomergeError, InputError

if TYPE_CHECKING:
    from evomerge.service import RemoteJob, Server

JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="Id of a job.", show_default=False)]
Project = Annotated[str | None, typer.Option(help="Name of the project.")]
Detach = Annotated[bool, typer.Option("--detach", help="Submit it, and do not watch.")]

remote = typer.Typer(
    name="evomerge --server URL",
    help="Searches on a server. The token is read from EVOMERGE_TOKEN, or from the file that "
    "`login` writes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_address = ""


def take_server(arguments: list[str]) -> list[str] | None:
    """Take `--server URL` from before the command; the other arguments, or None without it."""
    global _address
    if not arguments or arguments[0].partition("=")[0] != "--server":
        return None
    _, separator, url = arguments[0].partition("=")
    rest = arguments[1:] if separator else arguments[2:]
    _address = url if separator else "".join(arguments[1:2])
    return rest


@contextmanager
def connected() -> Iterator[Server]:
    """The server that the command names; errors are shown in one line."""
    from evomerge.service import connect

    with answering(), connect(_address) as server:
        yield server


@remote.command()
def login() -> None:
    """Keep a token for this server in a file that only you can read; paste it, or pipe it in."""
    with answering():
        from evomerge.service import check_url, connect, keep_token

        url = check_url(_address)
        given = getpass.getpass("token: ") if sys.stdin.isatty() else sys.stdin.readline()
        if not given.strip():
            raise InputError("token: none was given; paste it, or pipe it in")
        with connect(url, token=given.strip()) as server:
            shown = server.connection.get("/session")
        say(f"{shown['person']}, {shown['role']}: kept in {keep_token(url, given.strip())}")


@remote.command()
def search(
    job: JobFile,
    overrides: Overrides = None,
    project: Project = None,
    name: Annotated[str | None, typer.Option(help="Shown in lists.")] = None,
    priority: Annotated[int, typer.Option(help="Higher ones run first.")] = 0,
    track: Track = None,
    detach: Detach = False,
) -> None:
    """Submit a search and watch it; Ctrl-C stops watching, and the search goes on.

    Exit codes: 0 a winner above the best parent, 2 bad input, 3 none above it, 130 interrupted.
    """
    with connected() as server:
        made = server.search(
            job, set=overrides, project=project, name=name, priority=priority, track=track
        )
        say_error(f"job {made.id} of project {made.facts['project']}")
        if detach:
            say(made.id)
            return
        _follow(made)


@remote.command()
def resume(
    job_id: JobId, overrides: Overrides = None, track: Track = None, detach: Detach = False
) -> None:
    """Go on with a search, with a larger budget if wanted, and watch it."""
    with connected() as server:
        from evomerge.service import read_changes

        job = server.job(job_id)
        after = job.facts["last_event"]
        job.resume(set=read_changes(overrides or ()), track=track)
        if not detach:
            _follow(job, after=after)


@remote.command()
def watch(job_id: JobId) -> None:
    """Watch a job until it ends; exit codes as of `search`."""
    with connected() as server:
        _follow(server.job(job_id))


def watch_url(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the job.", show_default=False)],
) -> None:
    """Watch a job on a server by its address; the same as `evomerge --server URL watch JOB_ID`."""
    global _address
    with answering():
        from evomerge.service import read_job_url

        _address, job_id = read_job_url(url)
    with connected() as server:
        _follow(server.job(job_id))


@remote.command()
def status(job_id: JobId, as_json: AsJson = False) -> None:
    """Show how far a search is, also while it runs."""
    with connected() as server:
        job = server.job(job_id)
        facts = job.status() if job.facts["kind"] == "search" and job.facts["started"] else None
        if as_json:
            say_json(facts or job.facts)
            return
        _show(job)
        for limit in (facts or {}).get("limits", ()):
            say(f"budget  {limit['used']:g} of {limit['most']:g} {limit['unit']}")
        best = (facts or {}).get("best_candidate")
        if best:
            say(f"best    {best['candidate']} {best['score']:.4f} on {best['items']} items")
        if (facts or {}).get("headline"):
            say(str(facts and facts["headline"]))


@remote.command("list")
def list_jobs(
    project: Project = None,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most jobs.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show jobs, the newest first."""
    with connected() as server:
        shown = []
        for job in server.jobs(project=project, state=state, limit=min(limit, 500)):
            shown.append(job)
            if len(shown) == limit:
                break
        if as_json:
            say_json([job.facts for job in shown])
            return
        for job in shown:
            _show(job)


@remote.command()
def cancel(job_id: JobId) -> None:
    """End a job; what it recorded is kept."""
    with connected() as server:
        _show(server.job(job_id).cancel())


@remote.command()
def pause(job_id: JobId) -> None:
    """Stop a job and free its place; resume goes on."""
    with connected() as server:
        _show(server.job(job_id).pause())


@remote.command()
def retry(job_id: JobId) -> None:
    """Queue a failed or cancelled job again."""
    with connected() as server:
        _show(server.job(job_id).retry())


@remote.command()
def log(job_id: JobId) -> None:
    """Show the end of what the processes of a job printed."""
    with connected() as server:
        for line in server.job(job_id).log().splitlines():
            say(line)


@remote.command()
def report(job_id: JobId, out: Annotated[Path, typer.Option(help="Where to write it.")]) -> None:
    """Download one HTML file that shows the whole search."""
    with connected() as server:
        say(f"report: {server.job(job_id).result().report(out)}")


@remote.command()
def export(
    job_id: JobId,
    out: Annotated[Path, typer.Option(help="Folder to make for the model.", show_default=False)],
    trial: Annotated[
        str | None, typer.Option(help="Export this candidate instead of the winner.")
    ] = None,
    point: Annotated[
        str | None, typer.Option(help="A point of a front, as for a run here.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Load and score the folder with stock tools.")
    ] = False,
    as_adapter: AsAdapter = False,
    rank: Rank = None,
    push: Push = None,
    public: Public = False,
) -> None:
    """Export on the server and download the folder; every file is checked."""
    with connected() as server:
        done = server.job(job_id).export(
            out,
            trial=trial,
            point=point,
            verify=verify,
            as_adapter=as_adapter,
            rank=rank,
            push=push,
            public=public,
        )
        result = done.facts["result"] or {}
        for line in result.get("lines", ()):
            say(str(line))
        say(f"downloaded: {out}")
        if verify and not result.get("verified"):
            raise typer.Exit(EvomergeError.exit_code)


def _follow(job: RemoteJob, *, after: int = 0) -> None:
    """Show the events of a job until its end; exit as a search here does."""
    from evomerge.service import StateChanged

    with interruptible(f"evomerge --server {_address} watch {job.id}"):
        for event in job.watch(after=after):
            if isinstance(event, StateChanged):
                reason = f": {event.message}" if event.message else ""
                say_error(f"{event.state}{reason}")
            else:
                _show_event(event)
    if job.state != "succeeded":
        raise InputError(f"{job.id}: {job.state}: {job.facts['message'] or 'it was stopped'}")
    if job.facts["kind"] != "search":
        _show(job)
        return
    result = job.result()
    for line in result.lines:
        say(line)
    say(f"next: evomerge --server {_address} export {job.id} --out DIR")
    raise typer.Exit(0 if result.better else NO_GAIN)


def _show_event(event: Any) -> None:
    from evomerge.search import CandidateDone, GenerationDone, Note

    if isinstance(event, CandidateDone):
        score = event.failure or f"{event.score:.4f}"
        say_error(f"{event.candidate} {event.label}: {score} on {event.items} items")
    elif isinstance(event, GenerationDone):
        best = "no score" if event.best is None else f"best {event.best:.4f}"
        say_error(f"generation {event.generation}: {event.scored} scored, {best}")
    elif isinstance(event, Note):
        say_error(event.text)


def _show(job: RemoteJob) -> None:
    facts = job.facts
    reason = f"  {facts['message']}" if facts["message"] else ""
    shown = [facts[key] for key in ("id", "state", "kind", "owner", "name")]
    say("  ".join(shown) + reason)

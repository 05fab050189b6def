"""The commands of `evomerge --server URL ...`: words and exit codes as for searches here."""

from __future__ import annotations

import getpass
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evomerge.cli.endings import answering, say, say_json, shown_path
from evomerge.cli.options import AsAdapter, AsJson, JobFile, Overrides, Public, Push, Rank, Track
from evomerge.cli.remote_options import (
    Detach,
    JobId,
    MaxDuration,
    Name,
    NotBefore,
    Priority,
    Project,
    Retries,
    queue_options,
)
from evomerge.cli.remote_results import follow, go_on, program_of, show_job, watch_events
from evomerge.errors import InputError

if TYPE_CHECKING:
    from evomerge.service import RemoteJob, Server

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
    name: Name = None,
    priority: Priority = None,
    not_before: NotBefore = None,
    max_duration: MaxDuration = None,
    retries: Retries = None,
    track: Track = None,
    detach: Detach = False,
) -> None:
    """Submit a search and watch it; Ctrl-C stops watching, and the search goes on.

    Exit codes: 0 a winner above the best parent, 2 bad input, 3 none above it, 130 interrupted.
    """
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
        made = server.search(job, set=overrides, **options)
        go_on(server, made, detach=detach)


@remote.command()
def resume(
    job_id: JobId, overrides: Overrides = None, track: Track = None, detach: Detach = False
) -> None:
    """Go on with a search, with a larger budget if wanted, and watch it."""
    with connected() as server:
        job = server.job(job_id)
        after = job.facts["last_event"]
        job.resume(set=overrides, track=track)
        if not detach:
            follow(server, job, after=after)


@remote.command()
def watch(job_id: JobId, as_json: AsJson = False) -> None:
    """Watch a job until it ends, and show its result; exit codes as of the job's command."""
    with connected() as server:
        follow(server, server.job(job_id), as_json=as_json)


def watch_url(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the job.", show_default=False)],
) -> None:
    """Watch a job on a server by its address; the same as `evomerge --server URL watch JOB_ID`."""
    global _address
    with answering():
        from evomerge.service import read_job_url

        _address, job_id = read_job_url(url)
    with connected() as server:
        follow(server, server.job(job_id))


@remote.command()
def status(job_id: JobId, as_json: AsJson = False) -> None:
    """Show how far a search is, also while it runs."""
    with connected() as server:
        job = server.job(job_id)
        facts = job.status() if job.facts["kind"] == "search" and job.facts["started"] else None
        if as_json:
            say_json(facts or job.facts)
            return
        show_job(job)
        if facts is not None:
            from evomerge.report import read_status, show_status

            show_status(read_status(facts), program=program_of(server))


@remote.command("list")
def list_jobs(
    project: Project = None,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted jobs instead.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most jobs.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show jobs, the newest first."""
    with connected() as server:
        shown = []
        filters = {"project": project, "state": state, "kind": kind, "deleted": deleted or None}
        for job in server.jobs(**filters, limit=min(limit, 500)):
            shown.append(job)
            if len(shown) == limit:
                break
        if as_json:
            say_json([job.facts for job in shown])
            return
        for job in shown:
            show_job(job)


@remote.command()
def cancel(job_id: JobId) -> None:
    """End a job; what it recorded is kept."""
    with connected() as server:
        show_job(server.job(job_id).cancel())


@remote.command()
def pause(job_id: JobId) -> None:
    """Stop a job and free its place; resume goes on."""
    with connected() as server:
        show_job(server.job(job_id).pause())


@remote.command()
def retry(job_id: JobId) -> None:
    """Queue a failed or cancelled job again."""
    with connected() as server:
        show_job(server.job(job_id).retry())


@remote.command()
def delete(job_id: JobId) -> None:
    """Delete a job, and cancel it if it runs; `restore` takes that back until it is purged."""
    with connected() as server:
        show_job(server.job(job_id).delete())


@remote.command()
def restore(job_id: JobId) -> None:
    """Take the deletion of a job back."""
    with connected() as server:
        show_job(server.job(job_id).restore())


@remote.command()
def log(job_id: JobId) -> None:
    """Show the end of what the processes of a job printed."""
    with connected() as server:
        for line in server.job(job_id).log().splitlines():
            say(line)


@remote.command()
def report(
    job_id: JobId,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it; JOB_ID.html if not given.")
    ] = None,
) -> None:
    """Download one HTML file that shows the whole search."""
    with connected() as server:
        say(f"report: {shown_path(server.job(job_id).record().report(out))}")


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
        check_free(out)
        made = server.job(job_id).begin_export(
            trial=trial,
            point=point,
            verify=verify,
            as_adapter=as_adapter,
            rank=rank,
            push=push,
            public=public,
        )
        _deliver(server, made, out)


@remote.command()
def download(
    job_id: Annotated[str, typer.Argument(metavar="JOB_ID", help="An export or a calibration.")],
    out: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
) -> None:
    """Download the folder of an export or a calibration, once it is there; every file is checked.

    It goes on with an export whose download was interrupted.
    """
    with connected() as server:
        check_free(out)
        _deliver(server, server.job(job_id), out)


def check_free(out: Path) -> None:
    """Raise InputError if a folder that is to be made is there already."""
    if out.exists() or out.is_symlink():
        raise InputError(f"--out: {out}: exists already; name another folder")


def _deliver(server: Server, job: RemoteJob[Any], out: Path) -> None:
    """Wait for a job that writes files, download them, and print what they are."""
    watch_events(server, job, again=f"download {job.id} --out {shlex.quote(str(out))}")
    if job.facts["kind"] != "export":
        job.download(out)
        say(f"downloaded: {out}")
        return
    from evomerge.cli.progress import show_export

    made = job.result()
    job.download(out)
    show_export(replace(made, out=out))

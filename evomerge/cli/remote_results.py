"""Watching a job on a server until its end, and its result as the command here prints it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from evomerge.cli.endings import NO_GAIN, interruptible, say, say_error, say_json, say_note
from evomerge.errors import InputError

if TYPE_CHECKING:
    from evomerge.service import RemoteJob, RemoteResult, Server


def program_of(server: Server) -> str:
    """How the commands for a server begin."""
    return f"evomerge --server {server.connection.url}"


def follow(
    server: Server,
    job: RemoteJob[Any],
    *,
    after: int = 0,
    as_json: bool = False,
    model: str | None = None,
) -> None:
    """Show the events of a job until its end, then its result; exit as the command here does.

    after: the number of the last event that is not shown again. model: what an evaluation calls
    the model; as its job does if not given.
    """
    watch_events(server, job, after=after, again=f"watch {job.id}")
    show_result(server, job, as_json=as_json, model=model)


def go_on(server: Server, made: RemoteJob[Any], *, detach: bool, **shown: Any) -> None:
    """Watch a job that was submitted just now, or only name it. shown: as of `follow`."""
    say_error(f"job {made.id} of project {made.facts['project']}")
    if detach:
        say(made.id)
    else:
        follow(server, made, **shown)


def watch_events(server: Server, job: RemoteJob[Any], *, after: int = 0, again: str) -> None:
    """Show the events of a job until its end. again: the command that goes on with it."""
    from evomerge.service import StateChanged

    with interruptible(f"{program_of(server)} {again}"):
        for event in job.watch(after=after):
            if isinstance(event, StateChanged):
                reason = f": {event.message}" if event.message else ""
                say_error(f"{event.state}{reason}")
            else:
                _show_event(event, job.facts["kind"])


def show_job(job: RemoteJob[Any]) -> None:
    """Print a job in one line."""
    facts = job.facts
    reason = f"  {facts['message']}" if facts["message"] else ""
    shown = [facts[key] for key in ("id", "state", "kind", "owner", "name")]
    say("  ".join(shown) + reason)


def show_result(
    server: Server, job: RemoteJob[Any], *, as_json: bool = False, model: str | None = None
) -> None:
    """Print the result of a job that has ended; exit as the command here does."""
    if job.state != "succeeded":
        raise InputError(f"{job.id}: {job.state}: {job.facts['message'] or 'it was stopped'}")
    result = job.result()
    match job.facts["kind"]:
        case "search":
            _show_search(server, job, result)
        case "check":
            from evomerge.cli.progress import show_check

            show_check(result, as_json=as_json)
        case "grid":
            from evomerge.cli.progress import show_grid

            if as_json:
                say_json(result.to_json())
            else:
                show_grid(result)
        case "evaluation":
            from evomerge.cli.progress import show_scores

            asked = job.facts["request"]
            called = model or asked["model"] or "recipe"
            show_scores(result, model=called, split=asked["split"], as_json=as_json)
        case "calibration":
            for written in result:
                say(written.line())
            say(f"statistics: job:{job.id}")
        case "export":
            from evomerge.cli.progress import show_export

            show_export(result)
            say(f"next: {program_of(server)} download {job.id} --out DIR")


def cut_lines(status: Mapping[str, Any]) -> list[str]:
    """What a search here prints of answers that were cut off."""
    note = [status["cut_note"]] if status["cut_note"] else []
    return [*note, *(f"warning: {each}" for each in status["warnings"])]


def _show_search(server: Server, job: RemoteJob[Any], result: RemoteResult) -> None:
    from evomerge.cli.progress import show_outcome

    assert result.outcome is not None, "a search that has succeeded has an outcome"
    # A job of an earlier version does not say which metrics it shows.
    metrics = (job.facts["result"] or {}).get("metrics", ())
    show_outcome(result.outcome, metrics, cut_lines(job.status()))
    say(f"next: {result.outcome.export_command(result.run_dir, program_of(server))}")
    raise typer.Exit(0 if result.better else NO_GAIN)


def _show_event(event: Any, kind: str) -> None:
    from evomerge.cli.progress import say_ended
    from evomerge.search import CandidateDone, Finished, GenerationDone, Note

    if isinstance(event, CandidateDone):
        score = event.failure or f"{event.score:.4f}"
        say_error(f"{event.candidate} {event.label}: {score} on {event.items} items")
    elif isinstance(event, GenerationDone):
        best = "no score" if event.best is None else f"best {event.best:.4f}"
        say_error(f"generation {event.generation}: {event.scored} scored, {best}")
    elif isinstance(event, Finished):
        say_ended(event)
    elif isinstance(event, Note) and kind in ("check", "evaluation"):
        say_note(event.text)
    elif isinstance(event, Note) and kind != "calibration":  # its files are listed at the end
        say_error(event.text)

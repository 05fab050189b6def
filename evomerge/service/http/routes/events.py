"""What a job does: its live events and its log."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse

from evomerge.service.http.callers import API, Caller, Viewer
from evomerge.service.http.here import Here, Service
from evomerge.service.http.job_logs import read_part
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.record_models import LogView
from evomerge.service.http.routes.jobs import READING, JobId, found
from evomerge.service.http.streams import watch
from evomerge.service.store.jobs import Job

router = APIRouter(prefix=f"{API}/jobs/{{job_id}}", tags=["watch"])

_SEND_S = 60.0
"""Seconds that a watcher may take to read an event; then it is left, and may come back."""


@router.get(
    "/events",
    summary="Live events",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events: `id` is the event's number, `event` its name, "
            "`data` its body. Event `end` is the last.",
            "content": {
                "text/event-stream": {
                    "schema": {"description": "A stream of events; each body is JSON."},
                    "example": 'id: 1\nevent: state\ndata: {"seq":1,"event":"state",'
                    '"state":"queued"}\n\n',
                }
            },
        },
        204: {"description": "The job has ended, and nothing follows the number that was sent"},
        **responses(*READING),
    },
)
async def watch_events(
    job_id: JobId,
    caller: Viewer,
    here: Here,
    last_event_id: Annotated[
        str | None,
        Header(
            max_length=20,
            pattern=r"^\d*$",
            description="Number of the last event that was received; a browser sends it itself.",
        ),
    ] = None,
    after: Annotated[
        int, Query(ge=0, lt=2**53, description="The same, for the first request.")
    ] = 0,
) -> Response:
    """Every event of a job from a number on, each once and in order, until the job ends."""
    job = await run_in_threadpool(found, here, caller, job_id)
    seq = int(last_event_id) if last_event_id else after
    if seq >= 2**53:
        raise Problem(
            422,
            f"Last-Event-ID: {seq}: no number of an event",
            field="Last-Event-ID",
            value=seq,
            mend="send the id of the last event that came, or none",
        )
    if job.over and seq >= job.last_event and last_event_id:
        return Response(status_code=204)
    problem = here.places.problem(caller.token_id)
    if problem is not None:
        raise Problem(429, problem, mend="close one first", headers={"Retry-After": "10"})
    stream = _held(here, job, min(seq, job.last_event), caller)
    # Heartbeats come from `watch`, which also asks whether the caller may still watch.
    return EventSourceResponse(stream, ping=0, sep="\n", send_timeout=_SEND_S)


async def _held(
    here: Service, job: Job, after: int, caller: Caller
) -> AsyncIterator[ServerSentEvent]:
    """The events of a watcher, who holds a place while the stream is open."""
    with here.places.taken(caller.token_id):
        events = watch(
            here.feeds, job, after, heartbeat_s=here.web.heartbeat_s, allowed=caller.is_usable
        )
        async with contextlib.aclosing(events):
            async for event in events:
                yield event


@router.get("/logs", summary="The log of a job", responses=responses(*READING))
def read_log(
    job_id: JobId,
    caller: Viewer,
    here: Here,
    after: Annotated[
        int,
        Query(
            ge=-(2**53),
            lt=2**53,
            description="Offset in bytes; negative: so many from the end. Send `next` to go on.",
        ),
    ] = -16384,
    limit: Annotated[int, Query(ge=1024, le=2**20, description="The most bytes.")] = 65536,
) -> LogView:
    """What the processes of the job printed. Passwords and tokens are hidden."""
    job = found(here, caller, job_id)
    text, following = read_part(
        here.settings.log_file(job.id), after=after, limit_bytes=limit, ended=job.over
    )
    return LogView(text=text, next=following)

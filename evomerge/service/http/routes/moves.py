"""What moves a job: cancel, pause, resume, retry, clone, another place in the queue, export."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from evomerge.service.http.callers import API, Runner
from evomerge.service.http.here import Here
from evomerge.service.http.models import (
    CloneRequest,
    MoveRequest,
    NewExport,
    Resumption,
)
from evomerge.service.http.problems import responses
from evomerge.service.http.routes.jobs import (
    CHANGING,
    MAKING,
    IdempotencyKey,
    JobId,
    found,
    queued,
    shown,
)
from evomerge.service.http.views import JobDetail
from evomerge.service.queue import admission, moves
from evomerge.service.queue.admission import admit_and_submit
from evomerge.service.store.jobs import NewJob

router = APIRouter(prefix=f"{API}/jobs/{{job_id}}", tags=["jobs"])


@router.post("/cancel", summary="Cancel a job", responses=responses(*CHANGING))
def cancel(job_id: JobId, caller: Runner, here: Here) -> JobDetail:
    """End a job. What it recorded is kept; `retry` goes on from there."""
    job = moves.wish(
        here.database, job_id, "cancel", settings=here.settings, who=caller.who, scope=caller.scope
    )
    return shown(here, job)


@router.post("/pause", summary="Pause a job", responses=responses(*CHANGING))
def pause(job_id: JobId, caller: Runner, here: Here) -> JobDetail:
    """Stop a job and free its place; `resume` goes on from its record."""
    job = moves.wish(
        here.database, job_id, "pause", settings=here.settings, who=caller.who, scope=caller.scope
    )
    return shown(here, job)


@router.post("/resume", summary="Resume a job", responses=responses(*CHANGING))
def resume(
    job_id: JobId,
    caller: Runner,
    here: Here,
    changes: Annotated[Resumption | None, Body()] = None,
) -> JobDetail:
    """Go on with a paused search, or with an ended one and a larger budget.

    Its `max_duration_s` counts anew, but not that of a job that runs or waits for an attempt.
    """
    job = moves.wish(
        here.database,
        job_id,
        "run",
        settings=here.settings,
        who=caller.who,
        scope=caller.scope,
        changes=(changes.set or None) if changes else None,
        track=changes.track if changes else None,
    )
    return shown(here, job)


@router.post("/retry", summary="Try a job again", responses=responses(*CHANGING))
def retry(job_id: JobId, caller: Runner, here: Here) -> JobDetail:
    """Queue a failed or cancelled job again; a search goes on from its record.

    Its `max_duration_s` counts anew.
    """
    most = here.settings.limits.jobs_queued
    job = moves.retry(here.database, job_id, who=caller.who, scope=caller.scope, most_queued=most)
    return shown(here, job)


@router.post("/clone", status_code=201, summary="Copy a job with changes", responses=MAKING)
def clone(
    job_id: JobId,
    caller: Runner,
    here: Here,
    response: Response,
    wanted: Annotated[CloneRequest | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> JobDetail:
    """Queue a new job with the request of this one, and changes of it."""
    wanted = wanted or CloneRequest()
    run: dict[str, Any] = {}
    for key in ("priority", "retries", "track"):
        if getattr(wanted, key) is not None:
            run[key] = getattr(wanted, key)
    for key in ("not_before", "max_duration_s"):  # null is a value of these
        if key in wanted.model_fields_set:
            run[key] = getattr(wanted, key)
    if wanted.not_before is not None:
        run["not_before"] = wanted.not_before.timestamp()
    job, created = admission.clone(
        here.database,
        job_id,
        here.settings,
        who=caller.who,
        scope=caller.scope,
        changes=wanted.set or None,
        name=wanted.name,
        run=run,
        idempotency=idempotency_key,
    )
    return queued(here, job, created, response)


@router.post("/move", summary="Another place in the queue", responses=responses(*CHANGING))
def move(job_id: JobId, place: MoveRequest, caller: Runner, here: Here) -> JobDetail:
    """Put a queued job before another of the same priority, or at the end."""
    job = moves.reorder(
        here.database, job_id, before=place.before, who=caller.who, scope=caller.scope
    )
    return shown(here, job)


@router.post(
    "/exports",
    status_code=201,
    summary="Export the result of a search",
    responses=MAKING,
)
def export(
    job_id: JobId,
    caller: Runner,
    here: Here,
    response: Response,
    wanted: Annotated[NewExport | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> JobDetail:
    """Queue an export: recipe, checkpoint, model card and manifest.

    It is a job of its own; when it has succeeded, its files can be downloaded.
    """
    wanted = wanted or NewExport()
    search = found(here, caller, job_id)
    if search.kind == "search" and search.attempts:
        here.records.check_choice(search, wanted.trial, wanted.point)
    job, created = admit_and_submit(
        here.database,
        NewJob(
            kind="export",
            request={
                "trial": wanted.trial,
                "point": wanted.point,
                "verify": wanted.verify,
                "as_adapter": wanted.as_adapter,
                "rank": wanted.rank,
                # Left out where not given: a key may come again from before there were these.
                **({"push": wanted.push} if wanted.push is not None else {}),
                **({"public": True} if wanted.public else {}),
            },
            project=search.project,
            owner=caller.name,
            name=wanted.name or "",
            priority=wanted.priority,
            parent=search.id,
            idempotency=idempotency_key,
        ),
        here.settings,
        who=caller.who,
        scope=caller.scope,
    )
    return queued(here, job, created, response)

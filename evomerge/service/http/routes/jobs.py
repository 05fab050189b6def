"""Jobs: submitted, validated, listed, read, changed and deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response

from evomerge.errors import JobError
from evomerge.service.http import metrics
from evomerge.service.http.callers import API, Caller, Runner, Viewer
from evomerge.service.http.documents import as_mapping, as_yaml
from evomerge.service.http.here import Here, Service
from evomerge.service.http.models import (
    JobChanges,
    NewCalibration,
    NewCheck,
    NewEvaluation,
    NewGrid,
    NewJobRequest,
    NewSearch,
)
from evomerge.service.http.problems import problem_of, responses
from evomerge.service.http.views import JobDetail, JobPage, JobView, Validation
from evomerge.service.queue.admission import admit, admit_and_submit, edit
from evomerge.service.store import jobs
from evomerge.service.store.jobs import Job, JobFilter, Kind, NewJob, State
from evomerge.service.store.refusals import Conflict, NotFound, OverLimit, Refusal

router = APIRouter(prefix=f"{API}/jobs", tags=["jobs"])

READING = (401, 404, 421, 422, 429, 503)
CHANGING = (400, 401, 403, 404, 409, 413, 421, 422, 429, 503)

MAKING: dict[int | str, dict[str, Any]] = {
    200: {"model": JobDetail, "description": "The job that this key made before"},
    **responses(*CHANGING),
}
"""What a route that queues a job answers."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key gives the job that it made before, so that a request can be "
        "sent again.",
    ),
]

JobId = Annotated[
    str, Path(max_length=64, description="Id of a job.", examples=["jx3k5q7n2a4b6c8d"])
]


def found(here: Service, caller: Caller, job_id: str) -> Job:
    """A job that the caller may see. Raises NotFound, also for one of another project."""
    return jobs.get(here.database, job_id, scope=caller.scope)


def shown(here: Service, job: Job) -> JobDetail:
    """A job with what was asked for."""
    return JobDetail.of(job, here.project_names())


def queued(here: Service, job: Job, created: bool, response: Response) -> JobDetail:
    """A job that is new, or that its key made before: counted and answered as such."""
    if created:
        metrics.submitted.labels(job.kind).inc()
    else:
        response.status_code = 200
    response.headers["Location"] = f"{API}/jobs/{job.id}"
    return shown(here, job)


@router.post(
    "",
    status_code=201,
    summary="Submit a job",
    responses=MAKING,
)
def submit(
    new: NewJobRequest,
    caller: Runner,
    here: Here,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobDetail:
    """Queue a search, a check, a grid, an evaluation or a calibration.

    The job is checked as far as that takes milliseconds; models and tasks are checked when it runs.
    """
    asked = _asked(new, caller, here, idempotency_key)
    with _fields_inside(new):
        job, created = admit_and_submit(
            here.database, asked, here.settings, who=caller.who, scope=caller.scope
        )
    return queued(here, job, created, response)


@router.post("/validate", summary="Check a job without running it", responses=responses(*CHANGING))
def validate(new: NewJobRequest, caller: Runner, here: Here) -> Validation:
    """Say whether a job would be accepted, and show it complete. Nothing is kept.

    The plan of a search (items, time, memory) is the result of a job of kind `check`.
    """
    asked = _asked(new, caller, here, None)
    with _fields_inside(new):
        job = admit(here.database, asked, here.settings, scope=caller.scope)
    request = dict(job.request)
    return Validation(name=job.name, kind=job.kind, request=request, yaml=as_yaml(request))


@router.get("", summary="Jobs", responses=responses(401, 404, 421, 422, 429, 503))
def list_jobs(
    caller: Viewer,
    here: Here,
    project: Annotated[
        str | None, Query(max_length=100, description="Name or id of a project.")
    ] = None,
    state: Annotated[list[State] | None, Query(description="One state or more.")] = None,
    kind: Annotated[list[Kind] | None, Query(description="One kind or more.")] = None,
    owner: Annotated[str | None, Query(max_length=100)] = None,
    parent: Annotated[
        str | None, Query(max_length=64, description="Exports and clones of this job.")
    ] = None,
    q: Annotated[str | None, Query(max_length=200, description="Part of a name or id.")] = None,
    deleted: Annotated[bool, Query(description="Deleted jobs instead.")] = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> JobPage:
    """Jobs of the caller's projects, newest first."""
    wanted = JobFilter(
        project=None if project is None else here.project_id(project, caller.scope),
        states=tuple(state or ()),
        kinds=tuple(kind or ()),
        owner=owner,
        parent=parent,
        q=q,
        deleted=deleted,
    )
    page = jobs.find(here.database, wanted, scope=caller.scope, limit=limit, cursor=cursor)
    names = here.project_names()
    items = [JobView.of(job, names) for job in page.items]
    return JobPage(items=items, cursor=page.cursor, total=page.total)


@router.get("/{job_id}", summary="A job", responses=responses(*READING))
def read_job(job_id: JobId, caller: Viewer, here: Here) -> JobDetail:
    """A job, with what was asked for; deleted ones too, until they are purged."""
    return shown(here, found(here, caller, job_id))


@router.patch("/{job_id}", summary="Change a job", responses=responses(*CHANGING))
def change_job(job_id: JobId, changes: JobChanges, caller: Runner, here: Here) -> JobDetail:
    """Change its name, priority, start, longest duration or retries."""
    given: dict[str, Any] = changes.model_dump(exclude_unset=True)
    if changes.not_before is not None:
        given["not_before"] = changes.not_before.timestamp()
    for key in ("name", "priority", "retries"):
        if key in given and given[key] is None:
            del given[key]
    job = edit(
        here.database, job_id, here.settings, who=caller.who, scope=caller.scope, changes=given
    )
    return shown(here, job)


@router.delete(
    "/{job_id}", summary="Delete a job", responses=responses(401, 403, 404, 409, 421, 422, 429, 503)
)
def delete_job(job_id: JobId, caller: Runner, here: Here) -> JobDetail:
    """Delete a job; one that runs is cancelled. It can be restored until it is purged."""
    job = jobs.soft_delete(here.database, job_id, who=caller.who, scope=caller.scope)
    return shown(here, job)


@router.post("/{job_id}/restore", summary="Restore a deleted job", responses=responses(*CHANGING))
def restore_job(job_id: JobId, caller: Runner, here: Here) -> JobDetail:
    """Take a deletion back."""
    return shown(here, jobs.restore(here.database, job_id, who=caller.who, scope=caller.scope))


def _asked(
    new: NewSearch | NewCheck | NewGrid | NewEvaluation | NewCalibration,
    caller: Caller,
    here: Service,
    key: str | None,
) -> NewJob:
    """The job to admit. Raises JobError for a document that is no mapping, NotFound."""
    return NewJob(
        kind=new.kind,
        request=_request(new),
        project=here.project_id(new.project, caller.scope),
        owner=caller.name,
        name=new.name or "",
        priority=new.priority,
        not_before=None if new.not_before is None else new.not_before.timestamp(),
        max_duration_s=new.max_duration_s,
        retries=new.retries,
        idempotency=key,
        track=new.track if isinstance(new, NewSearch | NewGrid) else {},
    )


def _request(
    new: NewSearch | NewCheck | NewGrid | NewEvaluation | NewCalibration,
) -> dict[str, Any]:
    match new:
        case NewSearch():
            return as_mapping(new.job, new.set, where="job")
        case NewGrid():
            return as_mapping(new.grid, new.set, where="grid")
        case NewCheck():
            job = as_mapping(new.job, new.set, where="job")
            left_out = {"kind", "job", "set", *_SHARED}
            return {"job": job, **new.model_dump(exclude=left_out)}
        case NewEvaluation():
            job = as_mapping(new.job, new.set, where="job")
            recipe = None if new.recipe is None else as_mapping(new.recipe, {}, where="recipe")
            return {"model": new.model, "recipe": recipe, "job": job, "split": new.split}
        case NewCalibration():
            left_out = {"kind", *_SHARED}
            return new.model_dump(exclude=left_out)
    raise AssertionError(f"{new.kind} is no kind of job")


@contextlib.contextmanager
def _fields_inside(
    new: NewSearch | NewCheck | NewGrid | NewEvaluation | NewCalibration,
) -> Iterator[None]:
    """Let problems name a field of the request, where a job or a grid is a part of it.

    The line stays that of the command line, which knows the job alone.
    """
    part = {"search": "job", "grid": "grid"}.get(new.kind)
    try:
        yield
    except (JobError, Refusal) as error:
        problem = problem_of(error)
        field = problem.document.field
        if isinstance(error, Conflict | NotFound | OverLimit):
            raise problem from error  # not about the document
        if part is not None and field is not None and field.partition(".")[0] not in _SHARED:
            problem.document = problem.document.model_copy(update={"field": f"{part}.{field}"})
        raise problem from error


_SHARED = ("project", "name", "priority", "not_before", "max_duration_s", "retries", "track")

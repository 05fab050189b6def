"""What a new job may be: its request, its models and tasks, and its size, checked at submission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from evomerge.service.database.engine import Database, now
from evomerge.service.queue.changes import changed
from evomerge.service.queue.places import Places
from evomerge.service.queue.requests import complete
from evomerge.service.queue.trackers import check_track
from evomerge.service.settings import Limits, ServiceSettings
from evomerge.service.store import jobs
from evomerge.service.store.audit import Who
from evomerge.service.store.job import Job, NewJob
from evomerge.service.store.pages import Scope
from evomerge.service.store.refusals import Conflict, NotFound, Refusal
from evomerge.service.store.texts import check_name


def admit(db: Database, job: NewJob, settings: ServiceSettings, *, scope: Scope = None) -> NewJob:
    """The job as it is kept: its request complete, its name set. Nothing is written.

    It imports no torch and takes milliseconds; the job's own checks of models and tasks follow when
    it runs (or as a job of kind `check`). Raises Refusal, JobError, NotFound (a parent).
    """
    if scope is not None and job.project not in scope:
        raise NotFound("no such project", field="project", value=job.project, mend="check its name")
    limits = settings.limits
    _check_retries(job.retries, limits)
    if job.kind == "export":
        _check_parent(db, job, scope)
    check_track(job.kind, job.track, settings)
    request, name = check_request(db, job, settings)
    return replace(
        job,
        request=request,
        name=check_name(job.name or name, field="name", most=200),
        max_duration_s=_duration(job.max_duration_s, limits.duration_s),
    )


def check_request(
    db: Database, job: NewJob | Job, settings: ServiceSettings
) -> tuple[dict[str, Any], str]:
    """The complete request of a job and a name for it; also before each attempt, as folders change.

    Raises Refusal, JobError.
    """
    request = dict(job.request)
    if isinstance(job, Job) and job.changes:
        request = changed(request, job.changes)

    def own_output(job_id: str, field: str, kind: Literal["export", "calibration"]) -> str:
        wanted = f"job:{job_id}"
        try:
            found = jobs.get(db, job_id, scope=frozenset({job.project}))
        except NotFound:
            raise Refusal(
                "no such job in this project", field=field, value=wanted, mend="check its id"
            ) from None
        if found.kind != kind or found.state != "succeeded" or found.deleted is not None:
            raise Refusal(
                f"not {'an export' if kind == 'export' else 'a calibration'} that has succeeded",
                field=field,
                value=wanted,
                mend="wait for it, or name another",
            )
        return wanted if isinstance(job, NewJob) else str(settings.export_dir(job_id).absolute())

    places = Places.of(settings, job.project)
    return complete(job.kind, request, settings, places, own_output)


def admit_and_submit(
    db: Database,
    job: NewJob,
    settings: ServiceSettings,
    *,
    who: Who,
    scope: Scope = None,
    asked: NewJob | None = None,
) -> tuple[Job, bool]:
    """`admit`, then `store.jobs.submit`; an idempotency key that is known gives its job.

    It does so also where the job would not be admitted today. asked: as the client sent it, where
    `job` was made from more than that; only this is compared under one key.
    """
    asked = asked or job
    if scope is None or job.project in scope:
        before = jobs.earlier(db, asked)
        if before is not None:
            return before, False
    admitted = admit(db, job, settings, scope=scope)
    most = settings.limits.jobs_queued
    return jobs.submit(db, admitted, who=who, most_queued=most, asked=asked)


def clone(
    db: Database,
    job_id: str,
    settings: ServiceSettings,
    *,
    who: Who,
    scope: Scope = None,
    changes: Mapping[str, Any] | None = None,
    name: str | None = None,
    run: Mapping[str, Any] | None = None,
    idempotency: str | None = None,
) -> tuple[Job, bool]:
    """A new job with the request of another, and changes of it by dotted keys.

    Or the one that the idempotency key made before, and False. run: priority, not_before,
    max_duration_s, retries and track, where they are not those of the other. An export is cloned as
    another export of the same search. Raises NotFound, Refusal, OverLimit, Conflict (the key).
    """
    source = jobs.get(db, job_id, scope=scope)
    request = changed(changed(source.request, source.changes), changes or {})
    new = NewJob(
        kind=source.kind,
        request=request,
        project=source.project,
        owner=who.name,
        name=name or "",
        priority=source.priority,
        not_before=_start_to_come(db, source),
        max_duration_s=_shorter(source.max_duration_s, settings.limits.duration_s),
        retries=min(settings.limits.retries, source.retries),
        idempotency=idempotency,
        track=source.track,
        parent=source.parent if source.kind == "export" else source.id,
    )
    new = replace(new, **(run or {}))
    # What was asked for, and not what the other job's request is by now: it may change meanwhile.
    asked = replace(
        new,
        request={"clone": source.id, "set": dict(changes or {})},
        track=(run or {}).get("track", {}),
    )
    return admit_and_submit(db, new, settings, who=who, scope=scope, asked=asked)


def _start_to_come(db: Database, job: Job) -> float | None:
    """The start that a job was given, if it is still to come."""
    if job.not_before is None or job.setbacks:  # it waits to be tried again; nobody asked for that
        return None
    with db.read() as session:
        return job.not_before if job.not_before > now(session) else None


def edit(
    db: Database,
    job_id: str,
    settings: ServiceSettings,
    *,
    who: Who,
    scope: Scope = None,
    changes: Mapping[str, Any],
) -> Job:
    """`store.jobs.edit` within what the operator allows. Raises NotFound, Conflict, Refusal.

    A job whose longest time is taken away gets the operator's, as a new one does.
    """
    within = dict(changes)
    if "max_duration_s" in within:
        within["max_duration_s"] = _duration(within["max_duration_s"], settings.limits.duration_s)
    if "retries" in within:
        _check_retries(within["retries"], settings.limits)
    return jobs.edit(db, job_id, who=who, scope=scope, changes=within)


def check_changes(
    job: Job, changes: Mapping[str, Any], settings: ServiceSettings, db: Database
) -> dict[str, Any]:
    """All changes of a job that is resumed, with those of before. Raises Refusal, JobError."""
    if job.kind != "search":
        raise Refusal(
            f"a job of kind {job.kind} has no budget", field="set", mend="clone it with changes"
        )
    for key in changes:
        if key.partition(".")[0] not in ("budget", "compute"):
            raise Refusal(
                "cannot change in a search that has begun",
                field=f"set.{key}",
                mend="change its budget or compute, or clone it",
            )
        if key == "compute.dtype":
            raise Refusal("it changes the models", field=f"set.{key}", mend="clone the job")
    if job.state == "succeeded" and not any(key.startswith("budget") for key in changes):
        raise Conflict(
            "it has succeeded", field="job", value=job.id, mend="give it a larger budget in `set`"
        )
    together = {**job.changes, **changes}
    check_request(db, replace(job, changes=together), settings)
    return together


def _check_parent(db: Database, job: NewJob, scope: Scope) -> None:
    if job.parent is None:
        raise Refusal("missing", field="parent", mend="name the search to export")
    parent = jobs.get(db, job.parent, scope=scope)
    if parent.project != job.project:
        raise NotFound("no such job", field="parent", value=job.parent, mend="check its id")
    if parent.kind != "search":
        raise Refusal(
            f"it is a job of kind {parent.kind}",
            field="parent",
            value=job.parent,
            mend="name a search",
        )
    if parent.attempts == 0 or parent.deleted is not None:
        raise Conflict(
            "it has not begun" if parent.deleted is None else "it is deleted",
            field="parent",
            value=job.parent,
            mend="wait for its result",
        )


def _check_retries(asked: int, limits: Limits) -> None:
    if asked > limits.retries:
        raise Refusal(
            f"above {limits.retries}, the most on this service",
            field="retries",
            value=asked,
            mend="give fewer",
        )


def _shorter(*limits_s: float | None) -> float | None:
    return min((each for each in limits_s if each is not None), default=None)


def _duration(asked: float | None, most: float | None) -> float | None:
    if asked is not None and most is not None and asked > most:
        raise Refusal(
            f"above {most:g}, the most on this service",
            field="max_duration_s",
            value=asked,
            mend="give fewer",
        )
    return most if asked is None else asked

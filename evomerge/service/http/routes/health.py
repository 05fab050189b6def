"""For machines that watch the server: health, readiness, metrics."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from evomerge.errors import EvomergeError
from evomerge.service.database.schema import check_schema
from evomerge.service.http import logs, metrics
from evomerge.service.http.callers import READY, Caller, Viewer
from evomerge.service.http.here import Here, Service
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.record_models import Check, Health, Readiness
from evomerge.version import __version__

router = APIRouter(tags=["operation"])


@router.get("/health", summary="Whether the server answers", responses=responses(421))
async def health() -> Health:
    """It asks nothing else, so a busy database does not get the server restarted."""
    return Health(version=__version__)


@router.get(
    READY,
    summary="Whether the server can do its work",
    responses={503: {"model": Readiness, "description": "It cannot"}, **responses(421)},
)
def ready(here: Here, request: Request, response: Response) -> Readiness:
    """The database is reached and has this version's tables, jobs are run, the disk has room.

    What a failed check says is shown with a token for all projects, and is in the server's log.
    """
    checks = [
        _check("database", lambda: check_schema(here.database)),
        _check("supervisor", lambda: _supervised(here)),
        _check("disk", lambda: _room(here)),
    ]
    whole = all(check.ok for check in checks)
    if not whole:
        response.status_code = 503
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None or caller.scope is not None:
        checks = [Check(name=check.name, ok=check.ok) for check in checks]
    return Readiness(ready=whole, checks=checks)


def _check(name: str, look: Callable[[], object]) -> Check:
    try:
        look()
    except EvomergeError as error:
        logs.log("not_ready", level="warning", check=name, says=str(error))
        return Check(name=name, ok=False, says=str(error))
    except Exception as error:
        logs.log_error("not_ready", error)
        return Check(name=name, ok=False, says=type(error).__name__)
    return Check(name=name, ok=True)


def _supervised(here: Service) -> None:
    if here.settings.slots and (here.supervisor is None or not here.supervisor.alive):
        raise EvomergeError("the supervisor has not looked at the queue lately; see the log")


def _room(here: Service) -> None:
    free = shutil.disk_usage(here.settings.data).free
    if free < here.settings.least_disk_bytes:
        raise EvomergeError(
            f"{free / 2**30:.1f} GiB are free; a job needs "
            f"{here.settings.least_disk_bytes / 2**30:.1f} GiB to begin"
        )


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **responses(401, 403, 421, 429, 503),
    },
)
def read_metrics(caller: Viewer, here: Here) -> Response:
    """Requests, watchers, jobs by state, the queue, the disk. It needs a token for all projects."""
    if caller.scope is not None:
        raise Problem(
            403,
            "the token is for some projects only; metrics are of all",
            mend="make a viewer's token for all projects",
        )
    return Response(metrics.render(here.database, here.settings), media_type=metrics.CONTENT_TYPE)

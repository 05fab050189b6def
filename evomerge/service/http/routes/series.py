"""The values that the page draws: the search with its population, coefficients over depth.

They come from the code that makes the report's figures.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from evomerge.service.http.callers import API, Viewer
from evomerge.service.http.here import Here
from evomerge.service.http.problems import responses
from evomerge.service.http.routes.jobs import JobId, found
from evomerge.service.http.routes.records import checked, written
from evomerge.service.http.views import View

router = APIRouter(prefix=f"{API}/jobs/{{job_id}}", tags=["record"])

READING = responses(401, 404, 409, 421, 422, 429, 503)


class SeriesView(View):
    """The values of the figure of a search."""

    search: dict[str, Any] = Field(
        description="dots, crosses, generations, lines (baselines with intervals), stages, shares"
    )
    stages: list[str]
    population: dict[str, Any] | None


class DepthView(View):
    """Coefficients over depth: of the winner, stage winners, or the best candidate so far."""

    merges: list[dict[str, Any]]


@router.get(
    "/series",
    summary="The values of the figure of a search",
    response_model=SeriesView,
    responses=READING,
)
async def read_series(job_id: JobId, caller: Viewer, here: Here) -> Response:
    """Candidates in order, generations, baselines with intervals, the population; also live."""
    job = await run_in_threadpool(found, here, caller, job_id)
    return written(await here.records.answer(job, lambda record: record.series))


@router.get(
    "/coefficients",
    summary="Coefficients over depth",
    response_model=DepthView,
    responses=READING,
)
async def read_coefficients(job_id: JobId, caller: Viewer, here: Here) -> Response:
    """Every numeric parameter by component, model and layer; made by a process of its own."""
    job = await run_in_threadpool(found, here, caller, job_id)
    return written(
        await here.records.coefficients(job, lambda merges: checked(DepthView)({"merges": merges}))
    )

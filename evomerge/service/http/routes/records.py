"""What a search has recorded: status, winner, scores, candidates, answers, figures, report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from evomerge.service.http.callers import API, Caller, Viewer
from evomerge.service.http.guards import REPORT_POLICY
from evomerge.service.http.here import Here, Service
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.record_models import (
    AnswersView,
    CandidatesView,
    FiguresView,
    OutcomeView,
    ScoresView,
    StatusView,
)
from evomerge.service.http.records import RecordText
from evomerge.service.http.routes.jobs import JobId, found
from evomerge.service.http.views import View
from evomerge.service.store.jobs import Job

router = APIRouter(prefix=f"{API}/jobs/{{job_id}}", tags=["record"])

READING = responses(401, 404, 409, 421, 422, 429, 503)


@router.get("/status", summary="How far a search is", response_model=StatusView, responses=READING)
async def read_status(job_id: JobId, caller: Viewer, here: Here) -> Response:
    """As `evomerge status --json`, also while the search runs."""
    job = await _job(here, caller, job_id)
    return written(
        await here.records.answer(job, lambda record: checked(StatusView)(record.status))
    )


@router.get(
    "/winner", summary="The outcome of a search", response_model=OutcomeView, responses=READING
)
async def read_winner(job_id: JobId, caller: Viewer, here: Here) -> Response:
    """The winner or the front, what was gained over which parent, and the recipes."""
    job = await _job(here, caller, job_id)

    def write(record: RecordText) -> bytes:
        outcome = record.outcome
        if outcome is None:
            raise _unfinished(job)
        return checked(OutcomeView)(outcome)

    return written(await here.records.answer(job, write))


@router.get("/scores", summary="Test scores", response_model=ScoresView, responses=READING)
async def read_scores(job_id: JobId, caller: Viewer, here: Here) -> Response:
    """The winner, its parents and baselines on the test items, with intervals."""

    def write(record: RecordText) -> bytes:
        outcome = record.outcome
        return checked(ScoresView)({"models": [] if outcome is None else outcome["models"]})

    return written(await here.records.answer(await _job(here, caller, job_id), write))


@router.get(
    "/recipe",
    summary="A recipe",
    response_class=Response,
    responses={
        200: {"content": {"application/yaml": {"schema": {"type": "object"}}}},
        **READING,
    },
)
async def read_recipe(
    job_id: JobId,
    caller: Viewer,
    here: Here,
    trial: Annotated[
        str | None, Query(max_length=100, description="A candidate.", examples=["g0012-i003"])
    ] = None,
    point: Annotated[
        str | None, Query(max_length=1000, description="Of a front, as for an export.")
    ] = None,
) -> Response:
    """The recipe of the winner, of a point of the front, or of a candidate, as YAML."""
    recipe = await here.records.recipe(await _job(here, caller, job_id), trial, point)
    return Response(recipe, media_type="application/yaml")


@router.get("/candidates", summary="Candidates", response_model=CandidatesView, responses=READING)
async def read_candidates(
    job_id: JobId,
    caller: Viewer,
    here: Here,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=20_000)] = 20_000,
) -> Response:
    """A row for each candidate, as `trials_dataframe` has them."""
    job = await _job(here, caller, job_id)
    return written(await here.records.answer(job, lambda record: record.candidates(offset, limit)))


@router.get(
    "/answers", summary="What models answered", response_model=AnswersView, responses=READING
)
async def read_answers(
    job_id: JobId,
    caller: Viewer,
    here: Here,
    models: Annotated[
        list[str] | None,
        Query(
            max_length=20,
            description="Labels, candidates, or `winner`, `front`, `parents`, `soup`, `base`.",
        ),
    ] = None,
    change: Annotated[
        Literal["lost", "gained", "differ"] | None,
        Query(description="Only items on which the first model lost or gained, or any differ."),
    ] = None,
    task: Annotated[str | None, Query(max_length=200)] = None,
    item: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    split: Annotated[Literal["search", "validation", "test"] | None, Query()] = None,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Answers side by side: lost items first, then gained ones."""
    text = await here.records.answers(
        await _job(here, caller, job_id),
        models=models or [],
        change=change,
        task=task,
        item=item,
        split=split,
        offset=offset,
        limit=limit,
        write=checked(AnswersView),
    )
    return written(text)


@router.get(
    "/figures", summary="The figures of the report", response_model=FiguresView, responses=READING
)
async def read_figures(job_id: JobId, caller: Viewer, here: Here) -> Response:
    """The report's figures as plotly takes them, also while the search runs.

    They are made by a process of its own, which takes seconds; until the record changes, the same
    figures are given again.
    """
    job = await _job(here, caller, job_id)
    return written(
        await here.records.figures(job, lambda found: checked(FiguresView)({"figures": found}))
    )


@router.get(
    "/report",
    summary="The report",
    response_class=HTMLResponse,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
        **READING,
    },
)
async def read_report(job_id: JobId, caller: Viewer, here: Here) -> Response:
    """One HTML file that shows the whole search. Its scripts have no rights on this site."""
    page = await here.records.report(await _job(here, caller, job_id))
    return Response(
        page, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY}
    )


def checked(kind: type[View]) -> Callable[[Any], bytes]:
    """Writes values as this answer, whose fields they must have."""
    return lambda values: kind.model_validate(values).model_dump_json().encode()


def written(text: bytes) -> Response:
    """An answer whose JSON is made already."""
    return Response(text, media_type="application/json")


async def _job(here: Service, caller: Caller, job_id: str) -> Job:
    return await run_in_threadpool(found, here, caller, job_id)


def _unfinished(job: Job) -> Problem:
    return Problem(
        409,
        f"{job.id}: the search has not ended; it is {job.state}",
        field="id",
        value=job.id,
        mend="watch its events; the outcome follows event `finished`",
    )

"""What a search has recorded: status, winner, scores, candidates, answers, figures, report."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from pydantic import Field

from evomerge.service.http.callers import API, Caller, Viewer
from evomerge.service.http.guards import REPORT_POLICY
from evomerge.service.http.here import Here, Service
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.record_models import (
    AnswersView,
    CandidatesView,
    FiguresView,
    ItemsView,
    OutcomeView,
    ResultView,
    ScoresView,
    StatusView,
)
from evomerge.service.http.routes.jobs import JobId, found
from evomerge.service.store.jobs import Job

router = APIRouter(prefix=f"{API}/jobs/{{job_id}}", tags=["record"])

READING = responses(401, 404, 409, 421, 422, 429, 503)

MOST_CANDIDATES = 20
"""Candidates whose item results are given at once; each may have thousands."""


@router.get("/status", summary="How far a search is", responses=READING)
async def read_status(job_id: JobId, caller: Viewer, here: Here) -> StatusView:
    """As `evomerge status --json`, also while the search runs."""
    view = await here.records.view(await _job(here, caller, job_id))
    return StatusView.model_validate(view.status)


@router.get("/winner", summary="The outcome of a search", responses=READING)
async def read_winner(job_id: JobId, caller: Viewer, here: Here) -> OutcomeView:
    """The winner or the front, what was gained over which parent, and the recipes."""
    job = await _job(here, caller, job_id)
    outcome = (await here.records.view(job)).outcome
    if outcome is None:
        raise _unfinished(job)
    return OutcomeView.model_validate(outcome)


@router.get("/scores", summary="Test scores", responses=READING)
async def read_scores(job_id: JobId, caller: Viewer, here: Here) -> ScoresView:
    """The winner, its parents and baselines on the test items, with intervals."""
    outcome = (await here.records.view(await _job(here, caller, job_id))).outcome
    return ScoresView.model_validate({"models": [] if outcome is None else outcome["models"]})


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


@router.get("/candidates", summary="Candidates", responses=READING)
async def read_candidates(
    job_id: JobId,
    caller: Viewer,
    here: Here,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=20_000)] = 20_000,
) -> CandidatesView:
    """A row for each candidate, as `trials_dataframe` has them."""
    record = await here.records.view(await _job(here, caller, job_id))
    return CandidatesView(items=record.candidates(offset, limit), total=record.total)


@router.get("/items", summary="Results on items", responses=READING)
async def read_items(
    job_id: JobId,
    caller: Viewer,
    here: Here,
    candidate: Annotated[
        list[Annotated[str, Field(max_length=100)]] | None,
        Query(
            max_length=100,
            description="Candidates as /candidates names them; all of them if not given.",
            examples=[["g0012-i003"]],
        ),
    ] = None,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_CANDIDATES, description="Of candidates.")] = 20,
) -> ItemsView:
    """The results of candidates on every item, by task; one that failed has none."""
    job = await _job(here, caller, job_id)
    record = await here.records.view(job)
    if candidate is None:
        names = [row["candidate"] for row in record.candidates(offset, limit)]
    else:
        names = candidate[offset : offset + limit]
    items = await here.records.items(job, names) if names else []
    total = record.total if candidate is None else len(candidate)
    return ItemsView.model_validate({"items": items, "total": total})


@router.get("/record", summary="What a result is made of", responses=READING)
async def read_record(job_id: JobId, caller: Viewer, here: Here) -> ResultView:
    """The job as it runs, the number of candidates and the whole outcome, also while it runs.

    `evomerge.connect` makes a result in Python of it, with the values of `SearchResult`.
    """
    view = await here.records.view(await _job(here, caller, job_id))
    return ResultView.model_validate(view.result)


@router.get("/answers", summary="What models answered", responses=READING)
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
        list[Literal["lost", "gained", "differ"]] | None,
        Query(
            max_length=3,
            description="Only items on which the first model lost or gained, or any differ; may "
            "be repeated.",
        ),
    ] = None,
    task: Annotated[str | None, Query(max_length=200)] = None,
    item: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    split: Annotated[Literal["search", "validation", "test"] | None, Query()] = None,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> AnswersView:
    """Answers side by side: lost items first, then gained ones."""
    document = await here.records.answers(
        await _job(here, caller, job_id),
        models=models or [],
        changes=change or [],
        task=task,
        item=item,
        split=split,
        offset=offset,
        limit=limit,
    )
    return AnswersView.model_validate(document)


@router.get("/figures", summary="The figures of the report", responses=READING)
async def read_figures(job_id: JobId, caller: Viewer, here: Here) -> FiguresView:
    """The report's figures as plotly takes them, also while the search runs.

    They are made by a process of its own, which takes seconds; until the record changes, the same
    figures are given again.
    """
    return FiguresView.model_validate(
        {"figures": await here.records.figures(await _job(here, caller, job_id))}
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

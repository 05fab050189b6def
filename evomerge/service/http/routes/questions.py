"""Your own questions: an uploaded table becomes a task of its project; made tasks are listed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi import Path as PathPart
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from evomerge.service.database.engine import lock, now
from evomerge.service.http import made_tasks
from evomerge.service.http.callers import API, Caller, Runner, Viewer
from evomerge.service.http.here import Here, Service
from evomerge.service.http.models import Request
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.table_process import in_form_names
from evomerge.service.http.views import View, moment
from evomerge.service.queue.places import Places
from evomerge.service.store import audit, jobs, uploads
from evomerge.service.store.job import JobFilter
from evomerge.service.store.refusals import NotFound
from evomerge.service.store.upload_files import open_upload, room_errors
from evomerge.service.store.uploads import Upload

router = APIRouter(prefix=f"{API}/tasks", tags=["uploads"])

CHANGING = (400, 401, 403, 404, 409, 413, 421, 422, 429, 503, 507)

_ACTIVE: tuple[Literal["queued", "starting", "running", "paused"], ...] = (
    "queued",
    "starting",
    "running",
    "paused",
)

_Column = Field(default=None, max_length=200, description="A column; found by its name if null.")
_Stop = Annotated[str, Field(min_length=1, max_length=100)]
_Model = Annotated[str, Field(min_length=1, max_length=1000)]


class NewTask(Request):
    """An upload and what its columns are; see `evomerge.task_from_file`."""

    upload: str = Field(max_length=64, description="Id of the table; its project gets the task.")
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$", examples=["our_questions"])
    question: str | None = _Column
    answer: str | None = _Column
    choices: str | list[str] | None = Field(
        default=None, description="A column that lists them, or columns with one each; `none`."
    )
    context: str | None = _Column
    kind: Literal["choices", "exact", "number", "json", "contains", "regex"] | None = Field(
        default=None, description="How an answer is scored; proposed if null."
    )
    prompt: str | None = Field(
        default=None, max_length=4000, description="Wording with {question}, perhaps {context}."
    )
    stop: list[_Stop] | None = Field(
        default=None, max_length=16, description="Texts that end an answer; proposed if null."
    )
    max_tokens: int | None = Field(default=None, ge=1, le=32_768)
    fewshot: int = Field(default=0, ge=0, le=64, description="Rows that become examples.")
    count_from: Literal[0, 1] | None = Field(
        default=None, description="Number of the first choice, where answers are numbers."
    )
    models: list[_Model] = Field(
        default=[],
        max_length=8,
        description="Prompts are shown with their chat templates, and measured; as a job has them.",
    )
    within: float | None = Field(
        default=None, ge=0.001, lt=0.5, description="Wished half width of a score's interval."
    )
    keep: bool = Field(default=False, description="Keep the task; else it is only shown.")


class MadeTask(View):
    """What was proposed, each check as a sentence, and three prompts."""

    name: str
    upload: str = Field(description="Id of the upload that it was made of.")
    metric: str = Field(description="The one to search with.")
    metrics: list[str]
    kind: str
    reason: str
    stop: list[str]
    max_tokens: int
    columns: dict[str, Any]
    items: int
    examples: int
    splits: dict[str, int] = Field(description="Items of each part in a job with usual shares.")
    checks: list[dict[str, Any]]
    prompts: list[dict[str, Any]]
    folder: str | None = Field(description="For evaluation.task_folders; null: it was not kept.")


class KeptTask(View):
    """A task that was made of an upload. An older one says less of itself."""

    name: str
    project: str = Field(description="The project's name.")
    folder: str = Field(description="For evaluation.task_folders.")
    upload: str | None = Field(description="Id of the upload; it may be deleted by now.")
    file: str | None = Field(description="The name of its file.")
    sha256: str | None = Field(description="Of that file.")
    metric: str | None
    kind: str | None
    items: int | None
    owner: str | None
    made: datetime | None
    jobs: list[str] = Field(description="Jobs that wait or run and read it.")


class TaskPage(View):
    """Part of a list of made tasks, by name."""

    items: list[KeptTask]
    cursor: str | None = Field(description="Gives the next page; null at the end.")
    total: int


@router.post("/from-file", summary="Make a task of a table", responses=responses(*CHANGING))
async def make_task(new: NewTask, caller: Runner, here: Here) -> MadeTask:
    """Show, or make and keep, a task of an uploaded table. What is in the table stays data."""
    upload, models = await run_in_threadpool(_checked, new, caller, here)
    kept = here.settings.made_tasks(upload.project) / new.name
    options = {
        **new.model_dump(exclude={"upload", "keep", "models"}, exclude_none=True),
        "models": list(models),
        "encoding": upload.encoding,
        "delimiter": upload.delimiter,
        "header": upload.header,
        "shown_as": upload.name,
    }
    with (
        open_upload(here.settings.data, upload.project, upload.id) as file,
        _making(here) as folder,
    ):
        made = await here.tables.make(file, folder / new.name, options)
        said = _as_asked(made, models)
        if new.keep:
            await run_in_threadpool(_keep, folder / new.name, kept, said, upload, caller, here)
    return MadeTask(**said, upload=upload.id, folder=str(kept) if new.keep else None)


@router.get("/made", summary="Made tasks", responses=responses(401, 404, 421, 422, 429, 503))
def list_made_tasks(
    caller: Viewer,
    here: Here,
    project: Annotated[str | None, Query(max_length=100, description="Only of this one.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> TaskPage:
    """Tasks made of uploads, in the projects that the token may see, by name."""
    names = here.project_names()
    seen = set(names) if caller.scope is None else set(caller.scope)
    if project is not None:
        seen = {here.project_id(project, caller.scope)}
    found = [
        (f"{folder.name}~{owned}", owned, folder, note)
        for owned in seen
        for folder, note in made_tasks.all_of(here.settings, owned)
    ]
    found.sort(key=lambda each: each[0])
    after = [each for each in found if cursor is None or each[0] > cursor]
    shown = after[:limit]
    active = _active(here, {owned for _, owned, _, _ in shown})
    items = [
        KeptTask(
            name=folder.name,
            project=names.get(owned, owned),
            folder=str(folder),
            made=moment(note.get("made")),
            jobs=made_tasks.users(here.settings, owned, folder.name, active),
            **{
                key: note.get(key)
                for key in ("upload", "file", "sha256", "metric", "kind", "items", "owner")
            },
        )
        for _, owned, folder, note in shown
    ]
    more = shown[-1][0] if len(after) > limit else None
    return TaskPage(items=items, cursor=more, total=len(found))


@router.delete(
    "/made/{name}",
    summary="Delete a made task",
    status_code=204,
    responses=responses(401, 403, 404, 409, 421, 422, 429, 503),
)
def delete_made_task(
    name: Annotated[str, PathPart(max_length=64)],
    caller: Runner,
    here: Here,
    project: Annotated[str | None, Query(max_length=100)] = None,
) -> None:
    """Remove a task that was made of an upload; not while a job that waits or runs reads it."""
    owned = here.project_id(project, caller.scope)
    kept = here.settings.made_tasks(owned) / name
    if not made_tasks.is_name(name) or kept.is_symlink() or not kept.is_dir():
        raise NotFound("no such task", field="name", value=name, mend="check its name")
    gone = Path(tempfile.mkdtemp(prefix=".going-", dir=here.settings.data))
    try:
        with here.database.write() as session:
            lock(session, f"tasks {owned}")
            used = made_tasks.users(here.settings, owned, name, _active(here, {owned}))
            if used:
                raise Problem(
                    409,
                    f"name: {name}: {', '.join(used[:3])} needs it",
                    field="name",
                    value=name,
                    mend="wait until the job has ended, or cancel it",
                )
            audit.note(session, caller.who, "task.delete", name, project=owned)
            session.flush()
            with contextlib.suppress(FileNotFoundError):  # another request was faster
                os.rename(kept, gone / name)
    finally:
        shutil.rmtree(gone, ignore_errors=True)


def _checked(new: NewTask, caller: Caller, here: Service) -> tuple[Upload, Mapping[str, str]]:
    """The upload, and the models: resolved reference -> as it was given."""
    upload = uploads.get(here.database, new.upload, scope=caller.scope)
    if new.keep:
        _refuse_taken(here.settings.made_tasks(upload.project) / new.name)
    places = Places.of(here.settings, upload.project)
    models = {
        places.model(model, f"models.{number}"): model for number, model in enumerate(new.models)
    }
    return upload, models


@contextlib.contextmanager
def _making(here: Service) -> Iterator[Path]:
    """A folder for a task that is made, gone at the end."""
    data = here.settings.data
    with room_errors():
        data.joinpath("tasks").mkdir(exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(
            prefix=".making-", dir=data, ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)


def _as_asked(made: Mapping[str, Any], models: Mapping[str, str]) -> dict[str, Any]:
    """The report in the words of the request: fields of the form, models as they were named."""

    def words(text: str) -> str:
        for resolved, given in models.items():
            text = text.replace(resolved, given)
        return in_form_names(text)

    checks = [{**check, "sentence": words(check["sentence"])} for check in made["checks"]]
    prompts = [{**each, "model": models.get(each["model"])} for each in made["prompts"]]
    return {**made, "reason": words(made["reason"]), "checks": checks, "prompts": prompts}


def _keep(
    made: Path, kept: Path, said: Mapping[str, Any], upload: Upload, caller: Caller, here: Service
) -> None:
    project = upload.project
    with room_errors():
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with here.database.write() as session:
            lock(session, f"tasks {project}")  # two requests may want one name
            _refuse_taken(kept)
            facts = {key: said[key] for key in ("metric", "kind", "items")}
            made_tasks.write_note(
                made,
                {
                    **facts,
                    "upload": upload.id,
                    "file": upload.name,
                    "sha256": upload.sha256,
                    "owner": caller.name,
                    "made": now(session),
                },
            )
            detail = {"upload": upload.id, "file": upload.name, "sha256": upload.sha256}
            audit.note(session, caller.who, "task.make", kept.name, project=project, detail=detail)
            session.flush()
            os.rename(made, kept)


def _refuse_taken(kept: Path) -> None:
    if kept.exists():
        raise Problem(
            409,
            f"name: {kept.name}: the project has a task of this name",
            field="name",
            value=kept.name,
            mend="give another name",
        )


def _active(here: Service, projects: set[str]) -> list[jobs.Job]:
    """The jobs of projects that wait or run."""
    found: list[jobs.Job] = []
    for project in projects:
        cursor = None
        while True:
            page = jobs.find(
                here.database,
                JobFilter(project=project, states=_ACTIVE),
                limit=500,
                cursor=cursor,
            )
            found += page.items
            cursor = page.cursor
            if cursor is None:
                break
    return found

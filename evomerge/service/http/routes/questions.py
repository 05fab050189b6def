"""Your data: a task made of an uploaded table of questions and answers.

What is made holds no code: texts of the table and of the wording are data for its templates.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from evomerge.errors import hide_secrets
from evomerge.service.database.engine import lock
from evomerge.service.http.callers import API, Runner
from evomerge.service.http.here import Here, Service
from evomerge.service.http.models import Request
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.views import View
from evomerge.service.store import audit

router = APIRouter(prefix=f"{API}/tasks", tags=["found"])

CHANGING = (400, 401, 403, 404, 409, 413, 421, 422, 429, 503)

_MAKING_S = 120.0
_MAKING = threading.Semaphore(1)
"""One at a time, because a process takes some 300 MB."""

_SECRET = re.compile(r"^EVOMERGE_|PASS|TOKEN|SECRET|KEY|CREDENTIAL")
"""Names of variables that may hold one."""

_Column = Field(default=None, max_length=200, description="A column; found by its name if null.")


class NewTask(Request):
    """A table and what its columns are; see `evomerge.task_from_file`."""

    project: str | None = Field(default=None, max_length=100, description="Whose jobs may name it.")
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$", examples=["our_questions"])
    text: str = Field(
        min_length=1, description="The file's text.", examples=["question,answer\n1 + 1?,2\n"]
    )
    format: Literal["csv", "jsonl"] = "csv"
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
    fewshot: int = Field(default=0, ge=0, le=20)
    keep: bool = Field(default=False, description="Keep the task; else it is only shown.")


class MadeTask(View):
    """What was proposed, each check as a sentence, and three prompts."""

    name: str
    metric: str
    kind: str
    reason: str
    columns: dict[str, Any]
    items: int
    splits: dict[str, int]
    checks: list[dict[str, Any]]
    prompts: list[dict[str, Any]]
    folder: str | None = Field(description="For evaluation.task_folders; null: it was not kept.")


@router.post("/from-file", summary="Make a task of a table", responses=responses(*CHANGING))
def make_task(new: NewTask, caller: Runner, here: Here) -> MadeTask:
    """Show, or make and keep, a task of a table of questions and answers."""
    project = here.project_id(new.project, caller.scope)
    kept = here.settings.made_tasks(project) / new.name
    if new.keep:
        _refuse_taken(kept)
    here.settings.data.joinpath("tasks").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=here.settings.data) as folder:
        table = Path(folder) / f"{new.name}.{new.format}"
        table.write_text(new.text, encoding="utf-8")
        made = _made(table, Path(folder) / new.name, new)
        if new.keep:
            _keep(Path(folder) / new.name, kept, here, project, caller)
    return MadeTask(**made, folder=str(kept) if new.keep else None)


def _keep(made: Path, kept: Path, here: Service, project: str, caller: Runner) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with here.database.write() as session:
        lock(session, f"tasks {project}")  # two requests may want one name
        _refuse_taken(kept)
        audit.note(session, caller.who, "task.make", kept.name, project=project)
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


def _made(table: Path, out: Path, new: NewTask) -> dict[str, Any]:
    """The report of a process that makes the task. Raises Problem."""
    left_out = {"project", "text", "format", "keep"}
    options = new.model_dump(exclude=left_out, exclude_none=True)
    command = [sys.executable, "-m", "evomerge.service.http.task_maker", str(table), str(out)]
    # It reads a stranger's table, so it gets no secret of the server.
    harmless = {name: os.environ[name] for name in os.environ if not _SECRET.search(name)}
    environment = {**harmless, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with _MAKING:
        try:
            done = subprocess.run(
                command,
                input=json.dumps(options),
                capture_output=True,
                text=True,
                timeout=_MAKING_S,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise Problem(503, f"the task took more than {_MAKING_S:g} s") from error
    if done.returncode:
        line = done.stderr.strip().rpartition("\n")[2].replace(str(table), table.name)
        status = 422 if done.returncode == 2 else 500
        raise Problem(status, hide_secrets(line) or "the task cannot be made", field="text")
    made: dict[str, Any] = json.loads(done.stdout)
    return made

"""The commands `evomerge --server URL task ...`: tables are uploaded, tasks are made there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from evomerge.cli.endings import say, say_json
from evomerge.cli.options import AsJson
from evomerge.cli.remote import connected
from evomerge.cli.remote_options import Project
from evomerge.cli.tasks import (
    Answer,
    Choices,
    Context,
    CountFrom,
    Delimiter,
    Encoding,
    Fewshot,
    HasHeader,
    Kind,
    MaxTokens,
    Model,
    Name,
    Prompt,
    Question,
    Stop,
    Table,
    Within,
    unescaped,
)
from evomerge.errors import EvomergeError

group = typer.Typer(
    name="task", help="Tasks of your own questions and answers.", no_args_is_help=True
)


@group.command("from-file")
def from_file(
    file: Table,
    name: Name = None,
    question: Question = None,
    answer: Answer = None,
    choices: Choices = None,
    context: Context = None,
    kind: Kind = None,
    prompt: Prompt = None,
    stop: Stop = None,
    max_tokens: MaxTokens = None,
    fewshot: Fewshot = 0,
    count_from: CountFrom = None,
    model: Model = None,
    within: Within = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    header: HasHeader = True,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Upload a table and make a task of it, with the options of `evomerge task from-file`.

    Models are named as the server has them. Of a table that becomes no task nothing is kept.
    """
    with connected() as server:
        upload = server.upload(
            file, project=project, encoding=encoding, delimiter=delimiter, header=header
        )
        try:
            made = server.make_task(
                upload,
                name=name or _name(file),
                question=question,
                answer=answer,
                choices=_listed(choices, upload["columns"]),
                context=context,
                kind=kind,
                prompt=None if prompt is None else unescaped(prompt),
                stop=[unescaped(text) for text in stop] if stop else None,
                max_tokens=max_tokens,
                fewshot=fewshot,
                count_from=count_from,
                models=model,
                within=within,
            )
        except EvomergeError:
            server.delete_upload(upload["id"])
            raise
        if as_json:
            say_json(made)
            return
        from evomerge.questions import TaskReport

        report = {**made, "source": upload["name"], "sha256": upload["sha256"]}
        for line in TaskReport.from_json(report).lines():
            say(line)
        say("")
        say(f"upload: {upload['id']}")
        say(f"folder: {made['folder']}")


@group.command("list")
def list_tasks(project: Project = None, as_json: AsJson = False) -> None:
    """Show the tasks that were made of uploads."""
    with connected() as server:
        listed = list(server.tasks(project=project))
        if as_json:
            say_json(listed)
            return
        for task in listed:
            _show(task, "name", "project", "metric", "items", "file", "upload")


@group.command()
def delete(
    name: Annotated[str, typer.Argument(help="Name of the task.", show_default=False)],
    project: Project = None,
) -> None:
    """Delete a task that was made of an upload; not while a job that waits or runs needs it."""
    with connected() as server:
        server.delete_task(name, project=project)
        say(f"deleted: {name}")


@group.command()
def uploads(project: Project = None, as_json: AsJson = False) -> None:
    """Show uploaded tables, the newest first."""
    with connected() as server:
        listed = list(server.uploads(project=project))
        if as_json:
            say_json(listed)
            return
        for upload in listed:
            _show(upload, "id", "project", "owner", "rows", "size_bytes", "name")


@group.command("delete-upload")
def delete_upload(
    upload_id: Annotated[str, typer.Argument(metavar="UPLOAD_ID", show_default=False)],
) -> None:
    """Delete an uploaded table; tasks made of it stay."""
    with connected() as server:
        gone = server.delete_upload(upload_id)
        stay = f"; tasks that stay: {', '.join(gone['tasks'])}" if gone["tasks"] else ""
        say(f"deleted: {gone['name']}{stay}")


def _name(file: Path) -> str:
    """A task's name, made from the file's."""
    plain = re.sub(r"[^a-z0-9]+", "_", file.stem.lower()).strip("_")[:50]
    return plain if plain[:1].isalpha() else f"questions_{plain}".rstrip("_")


def _listed(choices: str | None, columns: list[str]) -> str | list[str] | None:
    """The columns that --choices names: one, or several with commas between them."""
    if choices is None or choices in columns or "," not in choices:
        return choices
    return [name.strip() for name in choices.split(",")]


def _show(facts: dict[str, Any], *keys: str) -> None:
    say("  ".join("-" if facts[key] is None else str(facts[key]) for key in keys))

"""A service as a Python object: submit jobs, watch them, take their results.

server = evomerge.connect("https://merge.example", token="evm_...")
job = server.search("job.yaml", set={"budget.candidates": 80})
for event in job.watch():
    print(event)
result = job.result()          # the numbers of evomerge.SearchResult
result.export("merged")
"""

from __future__ import annotations

import secrets
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from evomerge.documents import parse_value
from evomerge.errors import JobError
from evomerge.service.client import tables
from evomerge.service.client.connection import (
    Connection,
    check_url,
    find_token,
)
from evomerge.service.client.job import RemoteJob
from evomerge.service.client.webhooks import RemoteWebhook
from evomerge.track import plain_wishes

if TYPE_CHECKING:
    pass


def connect(
    url: str, *, token: str | None = None, transport: httpx2.BaseTransport | None = None
) -> Server:
    """Connect to a service.

    Args:
        url: of the server, as "https://merge.example".
        token: of `evomerge token make`; from EVOMERGE_TOKEN or the file of tokens if not given.
        transport: how requests are sent, for tests.

    Returns:
        The server; use it in a `with`, or close it.

    Raises:
        InputError: the URL is no URL of a server, or there is no token.
    """
    where = check_url(url)
    return Server(Connection(where, token or find_token(where), transport=transport))


class Server:
    """A service that runs jobs."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; jobs go on."""
        self.connection.close()

    def search(
        self, job: str | Path | Mapping[str, Any] | Any, *, set: Any = None, **options: Any
    ) -> RemoteJob:
        """Submit a search.

        Args:
            job: as in `evomerge.search`; its models and tasks are named as the server has them.
            set: changes of the job.
            options: as in `submit`; `track` as in `evomerge.search`, of the server's trackers.

        Raises:
            InputError: the server refuses it, with field, value and mend.
        """
        return self.submit("search", job=_document(job, set), **options)

    def submit(self, kind: str, *, key: str | None = None, **request: Any) -> RemoteJob:
        """Submit a job of any kind; see the server's /openapi.json for its fields.

        key: the same key gives the job that it made before; made anew if not given.
        """
        asked = {name: value for name, value in request.items() if value is not None}
        if "track" in asked:
            asked["track"] = plain_wishes(asked["track"])
        facts = self.connection.post(
            "/jobs",
            {"kind": kind, **asked},
            headers={"Idempotency-Key": key or secrets.token_urlsafe(16)},
        )
        return RemoteJob(self.connection, facts)

    def upload(
        self,
        path: str | Path,
        *,
        project: str | None = None,
        encoding: str | None = None,
        delimiter: str | None = None,
        header: bool = True,
    ) -> dict[str, Any]:
        """Upload a table of questions and answers, whatever its size; its sha256 is compared.

        Args:
            path: CSV, JSON lines or Parquet file.
            project: name or id; the token's only project, or `default`, if not given.
            encoding, delimiter, header: as in `evomerge.task_from_file`.

        Returns:
            What the server says of it: "id", "columns", "rows", "size_bytes", "sha256" and more.

        Raises:
            InputError: it cannot be read, or the server refuses it; nothing of it is kept there.
        """
        sign = "tab" if delimiter in ("\t", "\\t") else delimiter
        reading = {"encoding": encoding, "delimiter": sign}
        query = {"project": project, **reading, "header": str(header).lower()}
        return tables.send(self.connection, Path(path), query)

    def uploads(self, *, project: str | None = None) -> Iterator[dict[str, Any]]:
        """Uploads of the projects that the token may see, newest first."""
        return tables.pages(self.connection, "/uploads", project=project)

    def delete_upload(self, upload_id: str) -> dict[str, Any]:
        """Delete an upload; "tasks" of the answer names those made of it, which stay."""
        gone: dict[str, Any] = tables.remove(self.connection, "uploads", upload_id).json()
        return gone

    def make_task(
        self, upload: str | Mapping[str, Any], *, name: str, keep: bool = True, **form: Any
    ) -> dict[str, Any]:
        """Make a task of an upload.

        Args:
            upload: its id, or what `upload` returned.
            name: of the task.
            keep: keep it for jobs; else it is only shown.
            form: question, answer, choices, context, kind, prompt, stop, max_tokens, fewshot,
                count_from, models, within, as in `evomerge.task_from_file`; models as the server
                has them.

        Returns:
            The report: "metric", "checks", "prompts", "folder" for `evaluation.task_folders`, more.

        Raises:
            InputError: the server refuses it, with field, value and mend.
        """
        upload_id = upload if isinstance(upload, str) else upload["id"]
        asked = {"upload": upload_id, "name": name, "keep": keep, **form}
        return tables.make(self.connection, asked)

    def tasks(self, *, project: str | None = None) -> Iterator[dict[str, Any]]:
        """Tasks that were made of uploads, by name."""
        return tables.pages(self.connection, "/tasks/made", project=project)

    def delete_task(self, name: str, *, project: str | None = None) -> None:
        """Delete a task that was made of an upload; not while a job that waits or runs reads it."""
        tables.remove(self.connection, "tasks", "made", name, project=project)

    def job(self, job_id: str) -> RemoteJob:
        """A job that was submitted before."""
        return RemoteJob(self.connection, self.connection.get(f"/jobs/{job_id}"))

    def jobs(self, **filters: Any) -> Iterator[RemoteJob]:
        """Jobs, newest first; filters: project, state, kind, owner, parent, q."""
        cursor: str | None = None
        while True:
            page = self.connection.get("/jobs", **filters, cursor=cursor)
            for facts in page["items"]:
                yield RemoteJob(self.connection, facts)
            cursor = page["cursor"]
            if cursor is None:
                return

    def make_webhook(
        self,
        url: str,
        *,
        events: Sequence[str] = (),
        name: str = "",
        project: str | None = None,
    ) -> RemoteWebhook:
        """Tell an address of a project's jobs from now on.

        Args:
            url: a public https address, or one that the operator allows.
            events: for example "job.succeeded"; empty for everything.
            name: shown in lists.
            project: name or id; the token's only project, or `default`.

        Returns:
            The webhook; its `secret` signs what is sent, and is not shown again.

        Raises:
            InputError: the server refuses it, with field and mend.
        """
        new = {"url": url, "events": list(events), "name": name, "project": project}
        return RemoteWebhook(self.connection, self.connection.post("/webhooks", new))

    def webhooks(self, *, project: str | None = None) -> list[RemoteWebhook]:
        """Webhooks of the token's projects, the oldest first."""
        listed = self.connection.get("/webhooks", project=project)
        return [RemoteWebhook(self.connection, facts) for facts in listed]

    def webhook(self, webhook_id: str) -> RemoteWebhook:
        """A webhook that was made before."""
        return RemoteWebhook(self.connection, self.connection.get(f"/webhooks/{webhook_id}"))


def read_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Changes as the command line writes them, by dotted keys. Raises JobError."""
    found = {}
    for change in changes:
        key, separator, text = change.partition("=")
        if not separator or not key:
            raise JobError(f"--set {change}: write it as key.subkey=value")
        found[key] = parse_value(text, where=f"--set {change}", error=JobError)
    return found


def _document(job: Any, changes: Any) -> dict[str, Any]:
    """The job in plain values, read and checked here first."""
    from evomerge.api import read_job

    document: dict[str, Any] = read_job(job, changes).model_dump(mode="json")
    return document

"""A service as a Python object: submit jobs, watch them, take their results.

server = evomerge.connect("https://merge.example", token="evm_...")
job = server.search("job.yaml", set={"budget.candidates": 80})
for event in job.watch():
    print(event)
result = job.result()          # the numbers of evomerge.SearchResult
result.export("merged")
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import httpx2

from evomerge.service.client import tables
from evomerge.service.client.connection import (
    Connection,
    check_url,
    find_token,
)
from evomerge.service.client.job import RemoteJob
from evomerge.service.client.submission import (
    QueueOptions,
    grid_document,
    job_document,
    key_header,
    model_or_recipe,
    queue_fields,
)
from evomerge.service.client.webhooks import RemoteWebhook

if TYPE_CHECKING:
    import pandas

    from evomerge.api import Changes, Grid, Job
    from evomerge.calibrate import Written
    from evomerge.check import CheckReport
    from evomerge.evaluate import ScoreSummary, Split
    from evomerge.grid import GridOutcome
    from evomerge.service.client.comparison import ComparedSearch
    from evomerge.service.client.results import RemoteResult


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
        self, job: Job, *, set: Changes = None, **options: Unpack[QueueOptions]
    ) -> RemoteJob[RemoteResult]:
        """Submit a search.

        Args:
            job: as in `evomerge.search`; its models and tasks are named as the server has them.
            set: changes of the job.
            options: as in `submit`.

        Raises:
            InputError: the server refuses it, with field, value and mend.
        """
        return self.submit("search", {"job": job_document(job, set)}, **options)

    def check(
        self,
        job: Job,
        *,
        set: Changes = None,
        within: float = 0.05,
        timing: bool = True,
        **options: Unpack[QueueOptions],
    ) -> RemoteJob[CheckReport]:
        """Submit the check of a job; the arguments are those of `evomerge.check` and `submit`."""
        request = {"job": job_document(job, set), "within": within, "timing": timing}
        return self.submit("check", request, **options)

    def grid(
        self, grid: Grid, *, set: Changes = None, **options: Unpack[QueueOptions]
    ) -> RemoteJob[GridOutcome]:
        """Submit a grid; the arguments are those of `evomerge.grid` and `submit`."""
        return self.submit("grid", {"grid": grid_document(grid, set)}, **options)

    def evaluate(
        self,
        model: str | Path,
        job: Job,
        *,
        split: Split = "test",
        **options: Unpack[QueueOptions],
    ) -> RemoteJob[ScoreSummary]:
        """Submit the scoring of one model.

        Args:
            model: folder or hub id as the server has it, `job:ID` for what an export wrote there,
                or the path of a recipe here.
            job: as in `search`; its tasks give the items.
            split: "search", "validation" or "test".
            options: as in `submit`.

        Raises:
            InputError: the server refuses it, with field, value and mend.
        """
        request = {**model_or_recipe(model), "job": job_document(job, None), "split": split}
        return self.submit("evaluation", request, **options)

    def calibrate(
        self,
        models: str | Path | Sequence[str | Path],
        text: str | Path,
        *,
        fisher: bool = True,
        inputs: bool = True,
        sequences: int = 128,
        tokens: int = 512,
        seed: int = 0,
        batch: int = 4,
        dtype: Literal["float32", "bfloat16"] = "float32",
        device: str = "auto",
        trust_remote_code: bool = False,
        **options: Unpack[QueueOptions],
    ) -> RemoteJob[list[Written]]:
        """Submit the computing of statistics of models.

        The arguments are those of `evomerge.calibrate` and `submit`; models and text are named as
        the server has them. A job then names the statistics as `job:ID`, and `RemoteJob.download`
        gets their folder.
        """
        request = {
            "models": [str(each) for each in _listed(models)],
            "text": str(text),
            "fisher": fisher,
            "inputs": inputs,
            "sequences": sequences,
            "tokens": tokens,
            "seed": seed,
            "batch": batch,
            "dtype": dtype,
            "device": device,
            "trust_remote_code": trust_remote_code,
        }
        return self.submit("calibration", request, **options)

    def submit(
        self, kind: str, request: Mapping[str, Any], **options: Unpack[QueueOptions]
    ) -> RemoteJob[Any]:
        """Submit a job of any kind.

        Args:
            kind: "search", "check", "grid", "evaluation" or "calibration".
            request: what it is asked for; see the server's /openapi.json.
            options: project, name, priority, not_before, max_duration_s, retries, key; see
                `QueueOptions`.

        Raises:
            InputError: the server refuses it, with field, value and mend.
        """
        headers = key_header(options.get("key"))
        asked = _asked(kind, request, options)
        facts = self.connection.post("/jobs", asked, headers=headers)
        return RemoteJob(self.connection, facts)

    def validate(
        self, kind: str, request: Mapping[str, Any], **options: Unpack[QueueOptions]
    ) -> dict[str, Any]:
        """Ask whether the server would accept a job; the arguments are those of `submit`.

        Returns the complete request, also as "yaml"; nothing is kept. Raises InputError.
        """
        accepted: dict[str, Any] = self.connection.post(
            "/jobs/validate", _asked(kind, request, options)
        )
        return accepted

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
            encoding: as in `evomerge.task_from_file`.
            delimiter: the same.
            header: the same.

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

    def job(self, job_id: str) -> RemoteJob[Any]:
        """A job that was submitted before."""
        return RemoteJob(self.connection, self.connection.get(f"/jobs/{job_id}"))

    def jobs(self, **filters: Any) -> Iterator[RemoteJob[Any]]:
        """Jobs, newest first; filters: project, state, kind, owner, parent, q, deleted."""
        for facts in tables.pages(self.connection, "/jobs", **filters):
            yield RemoteJob(self.connection, facts)

    def open_run(self, job_id: str) -> RemoteResult:
        """What a search has recorded so far, as `evomerge.open_run`: also while it runs."""
        return self.job(job_id).record()

    def compare(self, jobs: Iterable[str | RemoteJob[Any]]) -> pandas.DataFrame:
        """Searches beside each other: a row each, by id.

        Columns name, state, winner, score, low, high (of the winner on the test items), gain,
        gain_low, gain_high, verdict, candidates, failed, worker_s, items, search_space, sources,
        and `task/metric` with the winner's value on the test items. None where a search has no
        such value yet.
        """
        from evomerge.service.client.comparison import comparison_table

        return comparison_table([self._compared(job) for job in jobs])

    def _compared(self, job: str | RemoteJob[Any]) -> ComparedSearch:
        from evomerge.service.client.comparison import compared

        return compared(job.refresh() if isinstance(job, RemoteJob) else self.job(job))

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


def _asked(kind: str, request: Mapping[str, Any], options: QueueOptions) -> dict[str, Any]:
    fields = {"kind": kind, **request, **queue_fields(options)}
    return {name: value for name, value in fields.items() if value is not None}


def _listed(models: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [models] if isinstance(models, str | Path) else models

"""A service in this process, with people of every role, and jobs in the states that tests need."""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from starlette.testclient import TestClient

import evomerge
from evomerge.service.database.engine import Database, open_database
from evomerge.service.database.schema import migrate
from evomerge.service.database.tables import JobRow
from evomerge.service.http.app import make_app
from evomerge.service.http.reader import Reader
from evomerge.service.http.server import OPERATOR
from evomerge.service.http.web_settings import WebSettings
from evomerge.service.settings import Limits, ServiceSettings
from evomerge.service.store import events, jobs, people
from evomerge.service.store.events import NewEvent
from evomerge.service.store.jobs import Job, NewJob
from tests.search import answered as answered_search

ROOT = Path(evomerge.__file__).parents[1]
MODELS = ROOT / "examples" / "kana" / "models"
RECORDS = ROOT / "tests" / "fixtures" / "records_0_1"
URL = "http://127.0.0.1:8321"
API = "/api/v1"

JOB: dict[str, Any] = {
    "name": "kana",
    "models": {"base": "base", "sources": ["arithmetic", "counting"]},
    "objectives": [{"task": "kana_arithmetic_en", "metric": "exact_match"}],
    "budget": {"candidates": 40},
}

WEB = WebSettings(requests_per_s=1e6, burst=10**6, heartbeat_s=0.2, poll_s=0.01)
"""Limits that no test meets by chance."""

_READER = Reader()
"""One process that reads for all tests; it is started by the first that needs it."""


@dataclass(kw_only=True)
class House:
    """A service without a supervisor. tokens: role, or `other` for another project -> secret."""

    settings: ServiceSettings
    database: Database
    web: WebSettings
    client: TestClient
    tokens: Mapping[str, str]
    projects: Mapping[str, str] = field(default_factory=dict)

    def as_(self, name: str | None) -> dict[str, str]:
        """The header with a token."""
        return {} if name is None else {"Authorization": f"Bearer {self.tokens[name]}"}

    def get(self, path: str, who: str | None = "viewer", **kwargs: Any) -> httpx2.Response:
        return self.ask("GET", path, who, **kwargs)

    def post(
        self, path: str, document: object = None, who: str | None = "runner", **kwargs: Any
    ) -> httpx2.Response:
        if document is not None:
            kwargs["json"] = document
        return self.ask("POST", path, who, **kwargs)

    def ask(
        self, method: str, path: str, who: str | None = "runner", **kwargs: Any
    ) -> httpx2.Response:
        headers = {**self.as_(who), **kwargs.pop("headers", {})}
        where = path if path.startswith("http") else f"{API}{path}"
        return self.client.request(method, where, headers=headers, **kwargs)

    def job(
        self,
        kind: str = "search",
        *,
        state: str = "queued",
        project: str = "default",
        request: Mapping[str, Any] = JOB,
        parent: str | None = None,
        name: str = "kana",
    ) -> Job:
        """A job that is kept as it is, in a state."""
        made, _ = jobs.submit(
            self.database,
            NewJob(
                kind=kind,  # type: ignore[arg-type]
                request=request,
                project=self.projects[project],
                owner="someone",
                name=name,
                parent=parent,
            ),
            who=OPERATOR,
        )
        if state != "queued":
            self.set_state(made.id, state)
        return jobs.get(self.database, made.id)

    def set_state(self, job_id: str, state: str) -> None:
        """Put a job into a state, with the event of it, as a runner would."""
        with self.database.write() as session:
            row = session.get_one(JobRow, job_id)
            row.state = state
            row.attempts = row.claim = 1
            row.started = row.made
            events.add(session, row, [NewEvent(name="state", body={"state": state})])

    def succeed(self, job_id: str, result: Mapping[str, Any]) -> None:
        """End a job with a result."""
        with self.database.write() as session:
            session.get_one(JobRow, job_id).result = dict(result)
        self.set_state(job_id, "succeeded")

    def tell(self, job_id: str, bodies: Sequence[Mapping[str, Any]], name: str = "note") -> None:
        """Keep events of a job."""
        with self.database.write() as session:
            row = session.get_one(JobRow, job_id)
            events.add(session, row, [NewEvent(name=name, body=body) for body in bodies])

    def searched(self, *, kind: str = "weights", project: str = "default") -> Job:
        """A search that has succeeded, with the record that version 0.1 wrote."""
        job = self.job(state="succeeded", project=project)
        folder = self.settings.run_dir(job.id)
        with tarfile.open(RECORDS / f"{kind}.tar.xz") as archive:
            archive.extractall(folder.parent, filter="data")
        shutil.move(folder.parent / kind, folder)
        return job

    def answered(self) -> Job:
        """A search that has succeeded and kept what its models answered; see `answered_search`."""
        tasks = answered_search.make_job().objectives
        objectives = [{"task": each.task, "metric": each.metric} for each in tasks]
        job = self.job(state="succeeded", request={**JOB, "objectives": objectives})
        with answered_search.answered(self.settings.run_dir(job.id)):
            return job

    def exported(self, files: Mapping[str, bytes], *, project: str = "default") -> Job:
        """An export that has succeeded, with files."""
        job = self.job("export", state="succeeded", project=project, request={})
        for path, content in files.items():
            place = self.settings.export_dir(job.id) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return job


def open_house(
    data: Path, template: Path, *, limits: Limits | None = None, models: Path = MODELS, **web: Any
) -> House:
    """A service on a copy of a prepared database. models: the folder of sources that it allows."""
    shutil.copytree(template, data, dirs_exist_ok=True)
    settings = ServiceSettings(
        data=data,
        slots=0,
        source_folders=(models,),
        limits=limits or Limits(),
        least_disk_bytes=0,
    )
    database = open_database(settings.database_url)
    reach = WebSettings(**{**vars(WEB), **web})
    client = TestClient(
        make_app(settings, database, web=reach, reader=_READER),
        base_url=URL,
        raise_server_exceptions=True,
    )
    names = (data / "tokens").read_text().split()
    projects = {each.name: each.id for each in people.projects(database)}
    return House(
        settings=settings,
        database=database,
        web=reach,
        client=client,
        tokens=dict(zip(names[::2], names[1::2], strict=True)),
        projects=projects,
    )


def prepare(data: Path) -> Path:
    """A data folder whose database has two projects and a token of every role."""
    for name in ("runs", "exports", "logs"):
        (data / name).mkdir(parents=True)
    settings = ServiceSettings(data=data)
    database = open_database(settings.database_url)
    migrate(database)
    mine = people.make_project(database, "default", who=OPERATOR).id
    other = people.make_project(database, "other", who=OPERATOR).id
    tokens = []
    wanted = (
        ("viewer", "viewer", [mine]),
        ("runner", "runner", [mine]),
        ("admin", "admin", None),
        ("scoped", "admin", [mine]),
        ("other", "runner", [other]),
    )
    for name, role, projects in wanted:
        _, secret = people.make_token(
            database,
            name=name,
            person=name,
            role=role,  # type: ignore[arg-type]
            projects=projects,
            who=OPERATOR,
        )
        tokens += [name, secret]
    (data / "tokens").write_text(" ".join(tokens))
    with database.engine.connect() as connection:  # everything into the one file
        connection.exec_driver_sql("pragma wal_checkpoint(truncate)")
    database.close()
    return data


def routes(house: House) -> list[tuple[str, str]]:
    """Every method and path of the API, with a real job where one is wanted."""
    job = house.job().id
    document = house.client.get("/openapi.json").json()
    return [
        (method.upper(), re.sub(r"{[^}]+}", job, path))
        for path, methods in document["paths"].items()
        for method in methods
        if path not in ("/health", "/ready")
    ]


def log_in(house: House, who: str = "runner") -> str:
    """Log a browser in, which keeps the cookie; the session's CSRF value."""
    answer = house.post("/session", {"token": house.tokens[who]}, None)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["csrf"])

"""What the routes of one server share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from evomerge.service.database.engine import Database
from evomerge.service.http.downloads import Digests
from evomerge.service.http.problems import Problem
from evomerge.service.http.rates import Places
from evomerge.service.http.records import Records
from evomerge.service.http.streams import Feeds
from evomerge.service.http.table_process import Tables
from evomerge.service.http.web_settings import WebSettings
from evomerge.service.runner.supervisor import Supervisor
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import people
from evomerge.service.store.pages import Scope

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, kw_only=True)
class Service:
    """The parts of a server. supervisor: None where another process runs the jobs."""

    settings: ServiceSettings
    web: WebSettings
    database: Database
    feeds: Feeds
    places: Places
    records: Records
    digests: Digests
    tables: Tables
    uploading: Places
    supervisor: Supervisor | None

    def project_names(self) -> dict[str, str]:
        """Id -> name of every project."""
        return {project.id: project.name for project in people.projects(self.database)}

    def project_id(self, given: str | None, scope: Scope) -> str:
        """The id of the project that a request means. Raises NotFound, Problem."""
        if given is None and scope is not None and len(scope) == 1:
            return next(iter(scope))
        if given is None and scope is not None and not scope:
            raise Problem(403, "the token has no project", mend="ask an admin for another token")
        return people.project_named(self.database, given or DEFAULT_PROJECT, scope=scope).id


async def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


Here = Annotated[Service, Depends(_service)]

"""Jobs that are run in this process, which has the libraries, as runners run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evomerge.service.database.engine import Database
from evomerge.service.queue import states
from evomerge.service.queue.admission import admit_and_submit, check_request
from evomerge.service.queue.claim import claim
from evomerge.service.queue.states import Ending
from evomerge.service.runner.attempt import Attempt
from evomerge.service.runner.work import WORK
from evomerge.service.settings import Limits, ServiceSettings
from evomerge.service.store import events
from evomerge.service.store.events import NewEvent
from evomerge.service.store.job import Job
from tests.service.jobs import ADMIN, HERE, new_job


@dataclass(kw_only=True)
class Service:
    """Runs jobs one after another in this process, as runners do in theirs."""

    database: Database
    settings: ServiceSettings
    project: str
    told: list[NewEvent] = field(default_factory=list)

    def submit(self, kind: str, request: Mapping[str, Any], **changes: Any) -> Job:
        new = new_job(self.project, kind=kind, request=request, **changes)
        return admit_and_submit(self.database, new, self.settings, who=ADMIN)[0]

    def attempt(self, job: Job) -> Attempt:
        claimed = claim(self.database, HERE, Limits())
        assert claimed is not None
        assert claimed.id == job.id
        begun = states.begin(self.database, job.id, claimed.claim, HERE)
        assert begun is not None
        request, _ = check_request(self.database, begun, self.settings)
        self.told = []
        return Attempt(
            database=self.database,
            settings=self.settings,
            job=begun,
            request=request,
            tell=self.told.append,
        )

    def run(self, job: Job) -> Mapping[str, Any]:
        attempt = self.attempt(job)
        result = WORK[job.kind](attempt)
        self.end(attempt, Ending(outcome="succeeded", result=result))
        return result

    def end(self, attempt: Attempt, ending: Ending) -> None:
        job = attempt.job
        events.append(self.database, job.id, self.told, claim=job.claim)
        states.finish(self.database, job.id, job.claim, ending, backoff_s=0.0)

    def names(self) -> list[str]:
        return [event.name for event in self.told]

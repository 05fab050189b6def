"""Jobs of every kind that have ended, with what runners make of them: made in this process."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evomerge.search import run
from evomerge.service.database.tables import JobRow
from evomerge.service.queue.admission import admit_and_submit, check_request
from evomerge.service.runner.attempt import Attempt
from evomerge.service.runner.work import WORK
from evomerge.service.store import jobs
from evomerge.service.store.job import Job
from tests.grid.grids import write_tasks
from tests.search.jobs import TASKS, LightPool, job_document, write_models
from tests.service.http.house import House
from tests.service.jobs import ADMIN, new_job

CANDIDATES = 8


class Ended:
    """Makes jobs of a service that have ended. models: a folder with a base and two experts."""

    def __init__(self, house: House, models: Path) -> None:
        write_models(models)
        self.models = models
        self._house = house
        self._settings = dataclasses.replace(
            house.settings,
            source_folders=(models,),
            task_folders=(TASKS,),
            least_disk_bytes=0,
            least_memory_bytes=0,
        )

    def job(self, kind: str, request: Mapping[str, Any], *, parent: str | None = None) -> Job:
        """A job that was admitted, and did its work in this process."""
        house = self._house
        new = new_job(house.projects["default"], kind=kind, request=request, parent=parent)
        made = admit_and_submit(house.database, new, self._settings, who=ADMIN)[0]
        checked, _ = check_request(house.database, made, self._settings)
        told: list[Any] = []
        attempt = Attempt(
            database=house.database,
            settings=self._settings,
            job=made,
            request=checked,
            tell=told.append,
        )
        self.end(made.id, WORK[made.kind](attempt))
        return jobs.get(house.database, made.id)

    def end(self, job: str, result: Mapping[str, Any]) -> None:
        """Say that a job has succeeded."""
        self._house.set_state(job, "succeeded")
        with self._house.database.write() as session:
            session.get_one(JobRow, job).result = dict(result)

    def document(self, **changes: Any) -> dict[str, Any]:
        """A small search over the models."""
        evaluation = {"items_per_generation": 8, "items_for_baselines": 8, "finalists": 1}
        return job_document(
            self.models,
            **{
                "evaluation": {"task_folders": [str(TASKS)], **evaluation},
                "budget": {"candidates": CANDIDATES},
                **changes,
            },
        )

    def search(self, *sources: str, **changes: Any) -> Job:
        """A search over these sources, whose candidates are scored by a hash instead of a model."""
        models = {"base": str(self.models / "base"), "sources": list(sources)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "open_job_pool", lambda *_given, **_named: LightPool())
            return self.job("search", self.document(models=models, **changes))

    def calibration(self) -> Job:
        """Statistics of a model's inputs over a little text."""
        folder = self._settings.uploads(self._house.projects["default"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "text.txt").write_text("one and two are three. " * 200)
        small = {"sequences": 2, "tokens": 16, "fisher": False}
        return self.job("calibration", {"models": ["first"], "text": "text.txt", **small})

    def grid(self, folder: Path) -> Job:
        """A method over two experts, on tasks that are made in a folder."""
        write_tasks(folder)
        self._settings = dataclasses.replace(self._settings, task_folders=(TASKS, folder))
        held_in = [("sums_one", "first"), ("sums_two", "second")]
        request = {
            "name": "methods",
            "models": {"base": "base", "sources": ["first", "second"]},
            "held_in": [
                {"task": task, "metric": "acc", "expert": expert} for task, expert in held_in
            ],
            "held_out": [{"task": "sums_other", "metric": "acc"}],
            "methods": ["linear"],
            "evaluation": {"task_folders": [str(folder)]},
            "compute": {"device": "cpu"},
        }
        return self.job("grid", request)

    def export(self, search: Job, **wanted: Any) -> Job:
        """An export of a search. Its weights are those of a source: to merge takes long."""
        house = self._house
        new = new_job(house.projects["default"], kind="export", request=wanted, parent=search.id)
        made = admit_and_submit(house.database, new, self._settings, who=ADMIN)[0]
        shutil.copytree(self.models / "first", self._settings.export_dir(made.id))
        self.end(made.id, {"label": (search.result or {}).get("winner")})
        return jobs.get(house.database, made.id)

"""GPUs of a person: what jobs declare, which are refused, and which wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evomerge.service.database.engine import Database
from evomerge.service.queue.admission import admit, check_changes
from evomerge.service.queue.claim import claim
from evomerge.service.queue.gpus import gpus_of
from evomerge.service.settings import Limits
from evomerge.service.store.people import Project
from evomerge.service.store.refusals import Refusal
from tests.service.jobs import HERE, new_job, queued, search_request, settings_in

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

LIMITS = Limits(gpus=2.0)
CPU = {"device": "cpu"}


def on(**compute: Any) -> dict[str, Any]:
    return search_request(compute=compute)


def test_a_job_declares_its_gpus(kind: str) -> None:
    assert gpus_of("search", on(workers=2, gpus_per_worker=0.5)) == 1.0
    assert gpus_of("search", on(workers=3)) == 3.0
    assert gpus_of("grid", on(workers="auto", gpus_per_worker="auto")) is None
    assert gpus_of("search", on(**CPU)) == 0.0
    assert gpus_of("check", {"job": on(workers=4)}) == 1.0
    assert gpus_of("evaluation", {"job": on(gpus_per_worker=2.0)}) == 2.0
    assert gpus_of("evaluation", {"job": on(**CPU)}) == 0.0
    assert gpus_of("calibration", {"device": "auto"}) == 1.0
    assert gpus_of("calibration", CPU) == 0.0
    assert gpus_of("export", {"verify": True}) == 1.0
    assert gpus_of("export", {"verify": False}) == 0.0


def test_a_job_that_could_never_run_is_refused(
    database: Database, project: Project, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path, limits=LIMITS)
    compute: dict[str, Any]
    for compute, says in (({"workers": 3}, "takes 3 GPUs"), ({}, "every GPU")):
        new = new_job(project.id, request=on(**compute))
        with pytest.raises(Refusal, match=says) as caught:
            admit(database, new, settings)
        assert caught.value.field == "compute.workers"
        admit(database, new, settings_in(tmp_path))
    for compute in ({"workers": 2}, {"workers": 3, "gpus_per_worker": 0.5}, CPU):
        admit(database, new_job(project.id, request=on(**compute)), settings)
    job = queued(database, project.id, request=on(workers=1))
    with pytest.raises(Refusal, match="takes 4 GPUs"):
        check_changes(job, {"compute.workers": 4}, settings, database)


def test_a_person_has_so_many_gpus_at_once(database: Database, project: Project) -> None:
    for name, owner, compute in (
        ("first", "ann", {"workers": 1}),
        ("large", "ann", {"workers": 2}),
        ("small", "ann", {"workers": 1}),
        ("none", "ann", CPU),
        ("other", "bob", {"workers": 2}),
    ):
        queued(database, project.id, name=name, owner=owner, request=on(**compute))
    names = []
    while (job := claim(database, HERE, LIMITS)) is not None:
        names.append(job.name)
    # `large` does not fit beside `first`; `small` would, but does not pass it.
    assert sorted(names) == ["first", "none", "other"]
    rest = [claim(database, HERE, Limits()), claim(database, HERE, Limits())]
    assert [job and job.name for job in rest] == ["large", "small"]

"""Jobs of the service's tests, and the settings that let them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evomerge.service.database.engine import Database
from evomerge.service.runner.identity import own_identity
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import jobs
from evomerge.service.store.audit import Who
from evomerge.service.store.job import Job, NewJob

ADMIN = Who(name="admin", token_id="t1", address="127.0.0.1")
HERE = own_identity()


def settings_in(folder: Path, **changes: Any) -> ServiceSettings:
    """Settings with a folder of two empty models; changes replace the rest."""
    for name in ("base", "first", "second"):
        (folder / "models" / name).mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {
        "data": folder / "data",
        "source_folders": (folder / "models",),
        "poll_s": 0.02,
        "backoff_s": 0.0,
        "least_disk_bytes": 0,
        "least_memory_bytes": 0,
    }
    return ServiceSettings(**{**usual, **changes})


def search_request(**changes: Any) -> dict[str, Any]:
    """The request of a search over those models."""
    usual = {
        "name": "sums",
        "models": {"base": "base", "sources": ["first", "second"]},
        "objectives": [{"task": "sums_choice", "metric": "acc"}],
        "budget": {"candidates": 8},
    }
    return {**usual, **changes}


def new_job(project: str, **changes: Any) -> NewJob:
    usual = {"kind": "search", "request": search_request(), "project": project, "owner": "ann"}
    return NewJob(**{**usual, **changes})


def queued(database: Database, project: str, **changes: Any) -> Job:
    """A job that is submitted as it is, without admission."""
    job, created = jobs.submit(database, new_job(project, **changes), who=ADMIN)
    assert created
    return job

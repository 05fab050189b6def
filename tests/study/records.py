"""A small record, and what it says."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from evomerge.evaluate.candidate import Candidate, CandidateKey, Failed, Scored, TaskItems
from evomerge.job import JobSpec
from evomerge.recipe import Recipe, RecipeModel
from evomerge.study import Parameter, Study, create_study
from tests.search.jobs import make_job

SCORED = Scored(
    tasks={"sums_choice": TaskItems(ids=(0, 2, 5), metrics={"acc": (1.0, 0.1 + 0.2, 0.0)})}
)

NOTES = ("facts", "estimates")


def candidate(place: int) -> Candidate:
    """Number `place` of the first generation."""
    return Candidate(
        key=CandidateKey(1, place),
        kind="genome",
        label=f"number {place}",
        recipe=Recipe(
            merge_method="linear",
            models=(RecipeModel(model="somewhere", parameters={"weight": 1.0}),),
            out_dtype="float32",
        ),
        items={"sums_choice": (0, 2, 5)},
        genome=(0.1, 1 / 3),
    )


def job_of(**changes: object) -> JobSpec:
    """A job whose models are not opened."""
    return make_job(Path("/models"), **changes)


def record_one(study: Study, place: int) -> None:
    """Record a candidate that was scored."""
    shown = {"weight": Parameter(value=0.1 * place, low=0.0, high=1.5)}
    study.record(candidate(place), SCORED, score=0.5, parameters=shown)


def write_record(run_dir: Path, *, job: JobSpec | None = None) -> Path:
    """Two candidates that were scored, one that failed, and notes."""
    job = job or job_of()
    with create_study(run_dir, job, facts={"job": job.fingerprint()}) as study:
        record_one(study, 0)
        record_one(study, 1)
        study.record(candidate(2), Failed(reason="logits are not finite"), score=None)
        study.note("estimates", {"headline": "found", "scores": [0.1 + 0.2, 1]})
    return run_dir


def contents_of(study: Study) -> str:
    """All that a record says, floats by their exact text."""
    notes = [study.noted(name) for name in NOTES]
    return repr(study.trials) + json.dumps(notes)


def execute(run_dir: Path, *statements: str) -> None:
    """Change the database behind the back of everyone."""
    with sqlite3.connect(run_dir / "study.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder: its bytes, and when it was written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

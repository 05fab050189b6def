"""The work of every kind of job: what it calls of the library, and what its result says."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge import api
from evomerge.errors import RunError
from evomerge.service.runner.attempt import Attempt, Failure, Work
from evomerge.service.runner.search_events import SearchTeller
from evomerge.service.store.events import NewEvent
from evomerge.service.store.job import Kind

if TYPE_CHECKING:
    from evomerge.api import SearchResult

_BLOCK = 2**22


def search(attempt: Attempt) -> Mapping[str, Any]:
    """Launch the search, or go on with its record."""
    where = attempt.settings.run_dir(attempt.job.id)
    teller = SearchTeller(attempt)
    ray_address = attempt.settings.ray_address
    if (where / "job.yaml").exists():
        # What code the job names was checked when it was admitted.
        found = api.resume(
            where,
            set=attempt.job.changes,
            observe=teller,
            ray_address=ray_address,
            trust_code=True,
        )
    else:
        found = api.search(attempt.request, where, observe=teller, ray_address=ray_address)
    return {**teller.outcome, **_outcome(found)}


def _outcome(found: SearchResult) -> dict[str, Any]:
    front = found.front
    return {
        "headline": found.headline,
        "verdict": found.verdict,
        "better": found.better,
        "winner": None if front else found.winner.label,
        "points": len(front),
        "score": None if front else _interval(found.winner.scores.score),
        "gain": None if found.gain is None else vars(found.gain),
    }


def _interval(found: Any) -> dict[str, float]:
    return {key: getattr(found, key) for key in ("value", "low", "high", "confidence")}


def grid(attempt: Attempt) -> Mapping[str, Any]:
    """Score the models of the grid that have no score yet."""
    outcome = api.grid(
        attempt.request,
        attempt.settings.run_dir(attempt.job.id),
        say=attempt.say,
        watch=lambda study: _GridTeller(attempt),
        ray_address=attempt.settings.ray_address,
        trust_code=True,
    )
    return outcome.to_json()


class _GridTeller:
    """Keeps the progress of a grid as events."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.say = attempt.say

    def announce(self, work: Any) -> None:
        """Keep the work that is left."""
        body = {"models": work.models, "items": work.items, "recorded": work.recorded}
        self._attempt.tell(NewEvent(name="work", body={**body, "searches": len(work.searches)}))

    @contextlib.contextmanager
    def scoring(self, candidates: Any) -> Iterator[Any]:
        """Keep the steps of models that are scored."""
        labels = {str(candidate.key): candidate.label for candidate in candidates}

        def observe(step: str, key: Any) -> None:
            label = labels.get(str(key))
            body = {"step": step, "candidate": str(key), "label": label}
            self._attempt.tell(NewEvent(name="progress", body=body))

        yield observe

    @contextlib.contextmanager
    def searching(self, study: Any) -> Iterator[Any]:
        """Keep the events of one of the grid's searches, under the search's name."""

        def observe(event: Any) -> None:
            body = event.to_json()
            body["search"] = study.job.name
            self._attempt.tell(NewEvent(name=f"search_{body.pop('event')}", body=body))

        yield observe


def calibration(attempt: Attempt) -> Mapping[str, Any]:
    """Compute statistics; those of an earlier attempt are kept."""
    asked = dict(attempt.request)
    out = attempt.settings.export_dir(attempt.job.id)

    def say(written: Any) -> None:
        attempt.say(written.line())

    def progress(label: str, done: int, count: int) -> None:
        body = {"label": label, "done": done, "count": count}
        attempt.tell(NewEvent(name="progress", body=body))

    written = api.calibrate(
        asked.pop("models"), asked.pop("text"), out, **asked, say=say, progress=progress
    )
    made = [{"kind": file.kind, "model": file.model, "computed": file.computed} for file in written]
    return {"statistics": made, "files": checksums(out)}


def evaluation(attempt: Attempt) -> Mapping[str, Any]:
    """Score a model, or the merge of a recipe."""
    asked = attempt.request
    model = asked["model"]
    if model is None:
        recipe = attempt.settings.run_dir(attempt.job.id) / "recipe.yaml"
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(json.dumps(asked["recipe"]), encoding="utf-8")  # JSON is YAML
        model = str(recipe)
    scores = api.evaluate(model, asked["job"], split=asked["split"], say=attempt.say)
    return {"scores": scores.to_json()}


def check(attempt: Attempt) -> Mapping[str, Any]:
    """Check a job as a search does, and say what it takes."""
    asked = attempt.request
    report = api.check(
        asked["job"],
        within=asked["within"],
        timing=asked["timing"],
        say=attempt.say,
        ray_address=None if asked.get("devices") else attempt.settings.ray_address,
        devices=asked.get("devices"),
        prices=asked.get("prices"),
    )
    for line in report.lines():
        print(line, flush=True)
    return {"report": report.to_json()}


def export(attempt: Attempt) -> Mapping[str, Any]:
    """Write the model of a search, anew where an earlier attempt was cut short."""
    asked = attempt.request
    parent = attempt.job.parent
    if parent is None:
        raise RunError("parent: missing; name the search to export")
    out = attempt.settings.export_dir(attempt.job.id)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    report = api.export(
        attempt.settings.run_dir(parent),
        out,
        trial=asked["trial"],
        point=asked["point"],
        verify=asked["verify"],
        as_adapter=asked["as_adapter"],
        rank=asked["rank"],
        trust_code=True,
        say=attempt.say,
    )
    lines = report.lines()
    if not report.verified:
        raise Failure("self_check", lines[-1])
    return {
        "label": report.label,
        "lines": list(lines),
        "verified": report.verification is not None,
        "files": checksums(out),
    }


def checksums(folder: Path) -> list[dict[str, Any]]:
    """Path in the folder, size and sha256 of every file, by path."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
            relative = path.relative_to(folder).as_posix()
            size = path.stat().st_size
            found.append({"path": relative, "size_bytes": size, "sha256": digest.hexdigest()})
    return found


WORK: Mapping[Kind, Work] = {
    "search": search,
    "grid": grid,
    "calibration": calibration,
    "evaluation": evaluation,
    "check": check,
    "export": export,
}

"""The events of a search as the service keeps them: none is missing or twice after a kill.

A resumed search sends no event again for what its record holds. But its process may have been
killed after a candidate was recorded and before its event was kept, so the record is compared with
the events that were kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge import api
from evomerge.service.runner.attempt import Attempt
from evomerge.service.store import events
from evomerge.service.store.events import NewEvent

_ONCE = {"candidate_done": "candidate", "generation_done": "generation"}
"""Events that come once for each of something, and the key that names it."""


class SearchTeller:
    """Keeps the events of a search; called with each.

    outcome: of its end, once there is one. metrics: those that its end shows.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.outcome: dict[str, Any] = {}
        self.metrics: list[dict[str, Any]] = []
        self._attempt = attempt
        self._kept: set[tuple[str, object]] = set()
        self._finished: Mapping[str, Any] | None = None
        if attempt.job.attempts > 1:
            names = (*_ONCE, "finished")
            for name, body in events.bodies(attempt.database, attempt.job.id, names):
                if name == "finished":
                    self._finished = body
                else:
                    self._kept.add((name, body[_ONCE[name]]))

    def __call__(self, event: Any) -> None:
        """Keep an event."""
        body = event.to_json()
        name = body.pop("event")
        if name == "started":
            self.metrics = api.shown_metrics(event.preparation)
            for recorded in event.recorded_events():
                self._keep(recorded.to_json())
        elif name == "finished":
            self.outcome = body
            if body == self._finished:
                return
        self._keep({"event": name, **body})

    def _keep(self, body: dict[str, Any]) -> None:
        name = body.pop("event")
        if name in _ONCE:
            key = (name, body[_ONCE[name]])
            if key in self._kept:
                return
            self._kept.add(key)
        elif name == "progress" and self._is_replayed(body):
            return
        _log(name, body)
        self._attempt.tell(NewEvent(name=name, body=body))

    def _is_replayed(self, body: Mapping[str, Any]) -> bool:
        """Whether a step of the optimiser is one that the record holds already."""
        if body["step"] not in ("asked", "told"):
            return False
        generation = body["candidate"].partition("-")[0].removeprefix("g")
        return generation.isdigit() and ("generation_done", int(generation)) in self._kept


def _log(name: str, body: Mapping[str, Any]) -> None:
    """A line in the log for what a person would want to read there."""
    line = None
    if name == "note":
        line = body["text"]
    elif name == "candidate_done":
        score = body["failure"] if body["score"] is None else f"{body['score']:.4f}"
        line = f"{body['candidate']} {body['label']}: {score}"
    elif name == "generation_done":
        best = "none" if body["best"] is None else f"{body['best']:.4f}"
        line = f"generation {body['generation']}: best {best}, {body['failed']} failed"
    elif name in ("checking", "finished"):
        line = body.get("headline", "checking models and tasks")
    if line is not None:
        print(" ".join(str(line).split()), flush=True)

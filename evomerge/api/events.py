"""Events of a search that were sent as JSON, as the typed events that they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from evomerge.evaluate import CandidateKey
from evomerge.search import (
    CandidateDone,
    Checking,
    Event,
    Finished,
    GenerationDone,
    Note,
    Planned,
    Progress,
    Started,
)

_KINDS: dict[str, type[Event]] = {
    "checking": Checking,
    "started": Started,
    "note": Note,
    "planned": Planned,
    "progress": Progress,
    "candidate_done": CandidateDone,
    "generation_done": GenerationDone,
    "finished": Finished,
}


def read_event(document: Mapping[str, Any]) -> Event | None:
    """The event of `Event.to_json`; None for a kind that this version does not know.

    Fields that are not sent (an open record, the whole outcome) are missing, as on an event that
    another process sent.
    """
    kind = _KINDS.get(str(document.get("event")))
    if kind is None:
        return None
    event: Event = object.__new__(kind)
    for field in fields(kind):
        if field.name in document:
            vars(event)[field.name] = _typed(field.name, document[field.name])
    return event


def _typed(name: str, value: Any) -> Any:
    if name == "candidate":
        return CandidateKey.parse(value)
    if name == "candidates":
        return tuple(CandidateKey.parse(each) for each in value)
    return Path(value) if name == "run_dir" else value

"""The outcome of a job, a winner or a front, as the record keeps it under one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.outcome.front import MODE, Front, read_front
from evomerge.outcome.selection import Selection, read_selection
from evomerge.study import Study
from evomerge.study.notes import SELECTION

Outcome = Selection | Front
"""What a search comes to: in `mode: single` a winner, in `mode: pareto` a front."""


def outcome_of(study: Study) -> Outcome | None:
    """What a search ended with, a winner or a front; None before there is one."""
    document = study.noted(SELECTION)
    return None if document is None else read_outcome(document)


def read_outcome(document: Mapping[str, Any]) -> Outcome:
    """The outcome as a record keeps it."""
    return read_front(document) if document.get("mode") == MODE else read_selection(document)

"""The outcome of a job, a winner or a front, as the record keeps it under one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.outcome.front import MODE, Front, read_front
from evomerge.outcome.selection import Selection, read_selection

Outcome = Selection | Front
"""What a search comes to: in `mode: single` a winner, in `mode: pareto` a front."""

NOTE = "selection"
"""Where the record keeps it."""


def read_outcome(document: Mapping[str, Any]) -> Outcome:
    """The outcome kept in a record (`study.noted(NOTE)`)."""
    return read_front(document) if document.get("mode") == MODE else read_selection(document)

"""A job made ready: sources opened, tasks built, space and objective made, everything checked.

All that can be wrong with a job is found here, cheapest checks first, before any weight is read.
Nothing here searches, scores or records.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.preparation.facts import (
        check_unchanged,
        facts_folder,
        facts_of,
        opened_count,
        opened_files_of,
    )
    from evomerge.preparation.models_alone import ModelAlone, ModelsAlone, check_rows
    from evomerge.preparation.pinning import pin, pinned_reference
    from evomerge.preparation.preparation import Preparation
    from evomerge.preparation.preparing import prepare
    from evomerge.preparation.staging import next_stage

__all__ = [
    "ModelAlone",
    "ModelsAlone",
    "Preparation",
    "check_rows",
    "check_unchanged",
    "facts_folder",
    "facts_of",
    "next_stage",
    "opened_count",
    "opened_files_of",
    "pin",
    "pinned_reference",
    "prepare",
]

_PLACES = {
    "ModelAlone": "evomerge.preparation.models_alone",
    "ModelsAlone": "evomerge.preparation.models_alone",
    "Preparation": "evomerge.preparation.preparation",
    "check_unchanged": "evomerge.preparation.facts",
    "facts_folder": "evomerge.preparation.facts",
    "facts_of": "evomerge.preparation.facts",
    "check_rows": "evomerge.preparation.models_alone",
    "opened_count": "evomerge.preparation.facts",
    "opened_files_of": "evomerge.preparation.facts",
    "next_stage": "evomerge.preparation.staging",
    "pin": "evomerge.preparation.pinning",
    "pinned_reference": "evomerge.preparation.pinning",
    "prepare": "evomerge.preparation.preparing",
}
"""Where each name is; looked up when it is asked for, as some of them load the large libraries."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"{__name__} has no {name}")
    return getattr(importlib.import_module(_PLACES[name]), name)

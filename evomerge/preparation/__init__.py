"""A job made ready: sources opened, tasks built, space and objective made, everything checked.

All that can be wrong with a job is found here, cheapest checks first, before any weight is read.
Nothing here searches, scores or records.
"""

from evomerge.preparation.facts import check_unchanged, facts_of, sources_digest
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
    "facts_of",
    "next_stage",
    "pin",
    "pinned_reference",
    "prepare",
    "sources_digest",
]

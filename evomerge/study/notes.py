"""What a record keeps of a whole search or grid beside its trials; see `Study.note`.

These names are part of the file format: a record that is there has its notes under them.
"""

from __future__ import annotations

from typing import Final, Literal

NoteName = Literal[
    "facts",
    "algorithms",
    "self_checks",
    "items of generations",
    "estimates",
    "stages",
    "passed_over",
    "selection",
    "searches",
]

FACTS: Final = "facts"
"""What the results depend on; under `job` the fingerprint of the job."""

ALGORITHMS: Final = "algorithms"
"""By which algorithm each stage is searched: number of the stage, from 0 -> its name."""

SELF_CHECKS: Final = "self_checks"
"""Comparisons with plain transformers that held: label -> what was found."""

GENERATION_ITEMS: Final = "items of generations"
"""How many items each generation was begun with: its number -> how many."""

ESTIMATES: Final = "estimates"
"""What was measured of the ways to estimate a task from a few items: task -> findings."""

STAGES: Final = "stages"
"""What the stages that have ended came to, in their order."""

PASSED_OVER: Final = "passed_over"
"""How many places of a split were spent on attempts that all failed: the attempts -> how many."""

SELECTION: Final = "selection"
"""The winner, or the front, as it was selected last."""

SEARCHES: Final = "searches"
"""What the searches of a grid came to: name -> budget, winner and recipe."""

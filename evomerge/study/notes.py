"""Names of the notes that a record keeps besides its trials; see `Study.note`.

These names are part of the file format: existing records use them.
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
"""What the results depend on; `job` has the fingerprint of the job."""

ALGORITHMS: Final = "algorithms"
"""The algorithm of each stage: number of the stage, from 0 -> name of the algorithm."""

SELF_CHECKS: Final = "self_checks"
"""Comparisons with plain transformers that passed: label -> findings."""

GENERATION_ITEMS: Final = "items of generations"
"""How many items each generation started with: its number -> how many."""

ESTIMATES: Final = "estimates"
"""Measurements of the ways to estimate a task from a few items: task -> findings."""

STAGES: Final = "stages"
"""The results of the stages that have ended, in order. `whole` is false where a repair of the
record lost trials of it."""

PASSED_OVER: Final = "passed_over"
"""How many places of a split went to attempts that all failed: the attempts -> how many."""

SELECTION: Final = "selection"
"""The winner, or the front, of the last selection."""

SEARCHES: Final = "searches"
"""The results of the searches of a grid: name -> budget, winner and recipe."""

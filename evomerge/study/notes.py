"""Names of what a record keeps of a whole search beside its trials; see `Study.note`."""

from __future__ import annotations

from typing import Final

ALGORITHMS: Final = "algorithms"
"""By which algorithm each stage is searched: number of the stage, from 0 -> its name."""

"""Conditions on answers: their language, their form, their length, said as plain settings.

A condition is a value that says of a text whether it is kept. Task files use conditions as metrics
and as filters (`metrics.py`, `filters.py`). Nothing here knows tasks, models or searches.
"""

from evomerge.conditions.condition import Condition
from evomerge.conditions.numbers import Reading, read_last_number
from evomerge.conditions.settings import parse_conditions

__all__ = ["Condition", "Reading", "parse_conditions", "read_last_number"]

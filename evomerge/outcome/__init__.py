"""What a search came to, as values: a winner or a front, and what may honestly be said of it.

They are read back from a record as they were kept. Nothing here scores or chooses a model, but for
the choice among the points of a front, so that showing a record loads no model library.
"""

from evomerge.outcome.claim import Comparison, LeftOut, Verdict
from evomerge.outcome.front import Axis, Front, Point
from evomerge.outcome.points import ChosenPoint, choose_point, chosen_outcome
from evomerge.outcome.reading import Outcome, outcome_of, read_outcome
from evomerge.outcome.selection import ConstraintCheck, Selection, read_selection

__all__ = [
    "Axis",
    "ChosenPoint",
    "Comparison",
    "ConstraintCheck",
    "Front",
    "LeftOut",
    "Outcome",
    "Point",
    "Selection",
    "Verdict",
    "choose_point",
    "chosen_outcome",
    "outcome_of",
    "read_outcome",
    "read_selection",
]

"""Which candidate really won: finalists on validation items, the winner on test items.

A candidate's own search score is no guide, for it is the luckiest of many. So the finalists (means
of the optimiser's distribution, the best few, the best baseline) are scored again on validation
items that no candidate saw, and the one that wins there is scored once on the test items, beside
the base, every parent and the soups. Nothing here proposes candidates or writes models.
"""

from evomerge.selection.selecting import TEST, VALIDATION, Entrant, select_winner, winner_of_stage
from evomerge.selection.selection import ConstraintCheck, Selection, read_selection

__all__ = [
    "TEST",
    "VALIDATION",
    "ConstraintCheck",
    "Entrant",
    "Selection",
    "read_selection",
    "select_winner",
    "winner_of_stage",
]

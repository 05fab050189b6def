"""Which candidate really won: finalists on validation items, the winner on test items.

A candidate's own search score is no guide, for it is the luckiest of many. So the finalists (means
of the optimiser's distribution, the best few, and every start that may be the best one) are scored
again on validation items that no candidate saw, and the one that wins there is scored once on the
test items, beside the base, every parent and the soups. In `mode: pareto` a front takes the
winner's place. Nothing here proposes candidates or writes models.
"""

from evomerge.selection.finalists import TEST, VALIDATION, Entrant, tested_before
from evomerge.selection.select_front import select_front
from evomerge.selection.selecting import select_winner, winner_of_stage

__all__ = [
    "TEST",
    "VALIDATION",
    "Entrant",
    "select_front",
    "select_winner",
    "tested_before",
    "winner_of_stage",
]

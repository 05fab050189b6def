"""A whole job: its stages one after another, then the selection.

What a stage ended with is kept in the record before the next begins, so that a resumed job goes on
in the stage where it was, also with another budget. A job without stages is one stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evomerge.ledger import Ledger
from evomerge.outcome import Outcome
from evomerge.preparation import Preparation, next_stage
from evomerge.recipe import Recipe, read_recipe
from evomerge.search import Ending, run_search
from evomerge.selection import select_front, select_winner, winner_of_stage
from evomerge.study import Study
from evomerge.study.notes import STAGES


def run_job(ledger: Ledger) -> tuple[Ending, Outcome]:
    """Search every stage and select the winner of the last, or the front. Raises WorkerError."""
    job, after = ledger.preparation.job, 0
    for stage in job.searches[:-1]:
        ended = _ended(ledger, stage.name)
        if ended is None:
            ending = run_search(ledger, after=after)
            winner = winner_of_stage(ledger, ending)
            ended = {
                "name": stage.name,
                "generations": ending.last,
                "reason": ending.reason,
                "winner": winner.label,
                "recipe": winner.recipe.to_yaml(),
            }
            ledger.study.note(STAGES, [*(ledger.study.noted(STAGES) or ()), ended])
        elif _lost(ledger, through=ended["generations"]):
            winner_of_stage(ledger, run_search(ledger, after=after, until=ended["generations"]))
        after = int(ended["generations"])
        ledger = replace(ledger, preparation=next_stage(ledger.preparation, _winner(ended)))
    ending = run_search(ledger, after=after)
    select = select_front if job.mode == "pareto" else select_winner
    return ending, select(ledger, ending)


def at_stage(preparation: Preparation, study: Study, stage: int) -> Preparation:
    """The job in its stage number `stage`, from 0; the record holds how those before it ended."""
    for ended in (study.noted(STAGES) or ())[:stage]:
        preparation = next_stage(preparation, _winner(ended))
    return preparation


def _lost(ledger: Ledger, *, through: int) -> bool:
    """Whether item results of a stage that has ended are lost: then it is run over its record."""
    study = ledger.study
    return any(study.lacks(one.key) for one in study.trials if one.key.generation <= through)


def _winner(ended: Mapping[str, Any]) -> Recipe:
    return read_recipe(ended["recipe"], where=f"the winner of {ended['name']}")


def _ended(ledger: Ledger, name: str) -> dict[str, Any] | None:
    noted = ledger.study.noted(STAGES) or ()
    return next((dict(ended) for ended in noted if ended["name"] == name), None)

"""The record of a search as plain values, for programs that show it, also while it is written.

Nothing here but the figures needs a large library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.api.arguments import read_folder
from evomerge.api.result import SearchResult, Winner, row_of
from evomerge.errors import RunError
from evomerge.evaluate import CandidateKey, read_summary
from evomerge.recipe import read_recipe
from evomerge.search import ChosenPoint, Front, Selection, chosen_outcome
from evomerge.study import read_study, refuse_grid

if TYPE_CHECKING:
    from evomerge.search import SearchOutcome


@dataclass(frozen=True, kw_only=True)
class RecordView:
    """What a record holds at one moment, in plain values.

    status: as `evomerge status --json`. candidates: a row each, as `trials_dataframe` has them.
    outcome: None before the search has ended; else its kind (winner, front), verdict, better,
    headline, lines, gain, the models on the test items, and the winner or the points of the front.
    series: values of the report's figure of the search and its population. job: as YAML.
    """

    status: Mapping[str, Any]
    candidates: tuple[Mapping[str, Any], ...]
    outcome: Mapping[str, Any] | None
    series: Mapping[str, Any]
    job: str


def read_record(run_dir: str | Path) -> RecordView:
    """Everything that a record holds, read once. Raises RunError if there is no search."""
    where = read_folder(run_dir)
    refuse_grid(where)
    with read_study(where) as study:
        from evomerge.report import series_of, status_of

        result = SearchResult(study)
        return RecordView(
            status=status_of(study).to_json(),
            candidates=tuple(row_of(trial) for trial in study.trials),
            outcome=None if result.outcome is None else _plain_outcome(result, result.outcome),
            series=series_of(study),
            job=study.job.to_yaml(),
        )


def _plain_outcome(result: SearchResult, outcome: SearchOutcome) -> dict[str, Any]:
    shared = {
        "verdict": outcome.verdict,
        "better": outcome.better,
        "headline": outcome.headline(),
        "lines": outcome.lines(),
        "gain": None if result.gain is None else asdict(result.gain),
        "models": [summary.to_json() for summary in result.tested],
        "winner": None,
        "points": [],
    }
    if isinstance(outcome, Selection):
        winner = result.winner
        shared["winner"] = {
            "label": winner.label,
            "candidate": str(winner.candidate),
            "genome": winner.genome,
            "scores": winner.scores.to_json(),
            "recipe": winner.recipe.to_yaml(),
        }
        return {"kind": "winner", **shared}
    assert isinstance(outcome, Front)
    shared["axes"] = [asdict(axis) for axis in outcome.axes]
    shared["points"] = [
        {
            "label": point.label,
            "role": point.role,
            "candidate": str(point.test_key),
            "genome": point.genome,
            "validation": point.validation.to_json(),
            "test": point.test.to_json(),
            "dominates": list(point.dominates),
            "surely": list(point.surely),
            "recipe": point.recipe.to_yaml(),
        }
        for point in outcome.points
    ]
    return {"kind": "front", **shared}


def read_winner(document: Mapping[str, Any]) -> Winner:
    """The winner of an outcome in plain values."""
    genome = document["genome"]
    return Winner(
        label=document["label"],
        candidate=CandidateKey.parse(document["candidate"]),
        recipe=read_recipe(document["recipe"], where="the winner's recipe"),
        genome=None if genome is None else tuple(genome),
        scores=read_summary(document["scores"]),
    )


def recipe_text(run_dir: str | Path, *, trial: str | None = None, point: str | None = None) -> str:
    """The recipe of the winner, of a point of the front, or of a candidate, as YAML.

    Raises RunError as `export` does.
    """
    where = read_folder(run_dir)
    refuse_grid(where)
    if trial is not None and point is not None:
        raise RunError("point: trial names a candidate already; give one of them")
    with read_study(where) as study:
        if trial is not None:
            return study.trial(CandidateKey.parse(trial)).recipe.to_yaml()
        chosen = chosen_outcome(study, point)
        found = chosen.point if isinstance(chosen, ChosenPoint) else chosen
        return found.recipe.to_yaml()


def figures_of(run_dir: str | Path) -> dict[str, dict[str, Any]]:
    """The figures of the report by their place in it: title, description, height, plotly's spec.

    It imports the large libraries, so servers call it in a process of its own. Raises RunError.
    """
    where = read_folder(run_dir)
    refuse_grid(where)
    with read_study(where) as study:
        from evomerge.report import list_figures
        from evomerge.sources import open_source

        structure = open_source(study.job.models.base, where="models.base").structure
        return {
            place: asdict(figure)
            for place, figure in list_figures(study, structure=structure).items()
        }

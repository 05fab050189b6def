"""The record of a search as plain values, for programs that show it, also while it is written.

Nothing here but the figures needs a large library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.api.arguments import read_folder
from evomerge.api.deliveries import recipe_of
from evomerge.api.result import SearchResult, items_of, row_of
from evomerge.evaluate import CandidateKey
from evomerge.search import Front, Selection
from evomerge.study import read_study, refuse_grid

if TYPE_CHECKING:
    from evomerge.search import SearchOutcome


@dataclass(frozen=True, kw_only=True)
class RecordView:
    """What a record holds at one moment, in plain values.

    status: as `evomerge status --json`. candidates: a row each, as `trials_dataframe` has them.
    outcome: None before the search has ended; else its kind (winner, front), verdict, better,
    headline, lines, gain, the models on the test items, and the winner or the points of the front.
    series: values of the report's figure of the search and its population. result: what a
    `BaseResult` is made of: the job as YAML, how many candidates there are, the whole outcome.
    """

    status: Mapping[str, Any]
    candidates: tuple[Mapping[str, Any], ...]
    outcome: Mapping[str, Any] | None
    series: Mapping[str, Any]
    result: Mapping[str, Any]


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
            result={
                "job": study.job.to_yaml(),
                "candidates": result.candidates,
                "outcome": None if result.outcome is None else result.outcome.to_json(),
            },
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


def recipe_text(run_dir: str | Path, *, trial: str | None = None, point: str | None = None) -> str:
    """The recipe of the winner, of a point of the front, or of a candidate, as YAML.

    Raises RunError as `export` does.
    """
    return recipe_of(read_folder(run_dir), trial=trial, point=point).to_yaml()


def read_items(run_dir: str | Path, candidates: Sequence[str]) -> list[dict[str, Any]]:
    """Item results of candidates in plain values, as `items_of` has them.

    Raises RunError for a candidate that is not recorded, or whose results are lost or damaged.
    """
    where = read_folder(run_dir)
    refuse_grid(where)
    with read_study(where) as study:
        wanted = [study.trial(CandidateKey.parse(name)) for name in candidates]
        return list(items_of(study, wanted))


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

"""What is exported: a winner, a point of a front, or a candidate chosen by hand.

The model card and the recipe get what the record says of it. Nothing is merged or scored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.errors import RunError
from evomerge.evaluate import CandidateKey, ScoreSummary, summarise
from evomerge.export.card import CardScores
from evomerge.recipe import Recipe
from evomerge.search import TEST, VALIDATION, ChosenPoint, Selection, cut_answers
from evomerge.study import Study
from evomerge.workers import PreparedJob

_FLATTERED = " A candidate that was picked for its score on them looks better there than it is."


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to export, and what the card and the recipe say of it.

    key: of the trial; a verification compares with its item results. block: the recipe's
    `evomerge:` block.
    """

    key: CandidateKey
    label: str
    recipe: Recipe
    opening: str
    scores: CardScores
    block: Mapping[str, Any]


def choose(
    preparation: PreparedJob,
    study: Study,
    chosen: Selection | ChosenPoint | None,
    trial: CandidateKey | None,
) -> Choice:
    """What to export: the candidate `trial` if it is given, else the result of the search.

    Raises RunError when there is no such candidate, or the search has no result yet.
    """
    if isinstance(chosen, Selection) and str(trial) == chosen.winner:
        return _winner(study, chosen)
    if trial is not None:
        return _by_hand(preparation, study, trial)
    if chosen is None:
        raise RunError(
            "the search has no winner yet; let `evomerge resume` finish it, or name a candidate "
            "with --trial"
        )
    return _winner(study, chosen) if isinstance(chosen, Selection) else _point(study, chosen)


def _winner(study: Study, selection: Selection) -> Choice:
    validation = [entry for entry in selection.validation if entry.label == selection.winner]
    summaries = {"validation": validation[:1], "test": [selection.summary(selection.winner)]}
    scores = {
        split: _stated(found[0], selection.items[split])
        for split, found in summaries.items()
        if found
    }
    return Choice(
        key=selection.test_key,
        label=selection.winner,
        recipe=selection.recipe,
        opening=selection.headline(),
        scores=CardScores(
            about_items="On test items that no candidate was proposed or chosen by "
            f"({_counted(selection.items['test'])}).",
            summaries=selection.test,
            tested=True,
            constraints=selection.constraints,
            differences={
                comparison.label: comparison.difference.interval
                for comparison in selection.comparisons
            },
            remarks=(*selection.remarks(), *cut_answers(study).warnings_of("winner")),
        ),
        block=_block(selection.winner, selection.genome, scores),
    )


def _point(study: Study, chosen: ChosenPoint) -> Choice:
    """A point of the front, with the points that were not chosen."""
    front, point = chosen.front, chosen.point
    unchosen = [alternative for alternative in front.points if alternative is not point]
    beside = [rival for rival in front.rivals if front.point(rival.label) is None]
    alternatives = ", ".join(alternative.label for alternative in unchosen) or "none"
    axes = ", ".join(str(axis) for axis in front.axes)
    return Choice(
        key=point.test_key,
        label=point.label,
        recipe=point.recipe,
        opening=(
            f"A point of a front over {axes}: {point.label}, chosen {chosen.why}. The other points "
            f"of the front: {alternatives}. Of the whole front: {front.headline()}"
        ),
        scores=CardScores(
            about_items=(
                "On test items that no candidate was proposed or chosen by "
                f"({_counted(front.items['test'])}). The points of the front come first."
            ),
            summaries=(point.test, *(alternative.test for alternative in unchosen), *beside),
            tested=True,
            constraints=point.constraints,
            remarks=(*front.remarks(), *cut_answers(study).warnings_of(point.label)),
        ),
        block=_block(
            point.label,
            point.genome,
            {
                "validation": _stated(point.validation, front.items["validation"]),
                "test": _stated(point.test, front.items["test"]),
            },
        ),
    )


def _by_hand(preparation: PreparedJob, study: Study, key: CandidateKey) -> Choice:
    trial = study.find(key)
    if trial is None:
        raise RunError(f"--trial {key}: no such candidate in {study.run_dir}; see its report")
    if trial.failure is not None:
        raise RunError(f"--trial {key}: it failed ({trial.failure}); choose another")
    summary = summarise(
        trial.label,
        "model",
        study.items_of(key),
        objective=preparation.objective.on(key.split),
        seed=preparation.job.optimizer.seed,
    )
    title = str(key) if trial.label == str(key) else f"{key} ({trial.label})"
    split = {VALIDATION: "validation", TEST: "test"}.get(key.generation, "search")
    return Choice(
        key=key,
        label=trial.label,
        recipe=trial.recipe,
        opening=(
            f"Chosen by hand: candidate {title}, not by the search's own selection; whether it is "
            "better than its parents was not tested."
        ),
        scores=CardScores(
            about_items=f"On {split} items ({_counted(trial.items)})."
            f"{'' if split == 'test' else _FLATTERED}",
            summaries=(summary,),
            tested=split == "test",
        ),
        block=_block(trial.label, trial.genome, {split: _stated(summary, trial.items)}),
    )


def _block(
    label: str, genome: tuple[float, ...] | None, scores: Mapping[str, Any]
) -> dict[str, Any]:
    """The entries on the candidate for a recipe's `evomerge:` block."""
    stated = {} if genome is None else {"genome": list(genome)}
    return {"candidate": label, **stated, "scores": dict(scores)}


def _stated(summary: ScoreSummary, items: Mapping[str, int]) -> dict[str, Any]:
    """A summary as plain values."""
    return {
        "items": dict(items),
        "objective": asdict(summary.score),
        "tasks": {
            task: {metric: asdict(interval) for metric, interval in metrics.items()}
            for task, metrics in summary.tasks.items()
        },
    }


def _counted(items: Mapping[str, int]) -> str:
    return ", ".join(f"{task} {count}" for task, count in items.items())

"""The outcome of a grid: normalised scores of every method and number of experts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evomerge.evaluate import Candidate, Interval, Metric, NormalisedScores, Share, TaskSuite
from evomerge.grid.cells import Cell, label_of
from evomerge.grid.specification import GridSpec
from evomerge.search import BASE, parent_labels
from evomerge.study import Study, Trial

Role = Literal["base", "expert", "merge"]


@dataclass(frozen=True, kw_only=True)
class Normalised:
    """Normalised scores of one model; None where no task has one.

    held_in: mean over the tasks of its experts, each divided by its own expert's score. held_out:
    mean over the held-out tasks, each divided by the base's score.
    """

    held_in: Interval | None
    held_out: Interval | None


@dataclass(frozen=True, kw_only=True)
class ModelOutcome:
    """A model alone, or a cell.

    experts: names of the merged experts. candidate: its key in the record. means: task -> metric ->
    score, not normalised; empty where it failed. failure: the reason, if it failed.
    """

    label: str
    role: Role
    method: str
    experts: tuple[str, ...]
    seed: int | None
    candidate: str
    means: Mapping[str, Mapping[str, float]]
    normalised: Normalised
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method with a number of experts: its merges over subsets and seeds, averaged.

    normalised: means over the merges. Their 95% intervals are for a draw of other items with the
    same merges. spread_*: standard deviation of the merges' own scores; None below two.
    """

    method: str
    experts: int
    merges: int
    failed: int
    normalised: Normalised
    spread_held_in: float | None
    spread_held_out: float | None


@dataclass(frozen=True, kw_only=True)
class GridOutcome:
    """The whole outcome; models: the base and the experts alone, then every merge.

    items: task -> how many items each model was scored on. held_in: metric -> the expert by whose
    score it is divided. held_out: metrics that are divided by the base's score. notes: what is left
    out and why.
    """

    name: str
    split: str
    items: Mapping[str, int]
    held_in: Mapping[str, str]
    held_out: tuple[str, ...]
    models: tuple[ModelOutcome, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs; the field names are those of these classes."""
        return asdict(self)


# From the record of a grid to its outcome: choose references, normalise scores, average rows.


_SEED = 0
"""Seed of the bootstrap: resamples are the same in every grid over the same items."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A recorded model, and the metrics of its held-in score."""

    label: str
    role: Role
    method: str
    experts: tuple[str, ...]
    seed: int | None
    trial: Trial
    held_in: tuple[Metric, ...]

    @property
    def name(self) -> str:
        """A unique name: over time, two merges may have the same label."""
        return str(self.trial.key) if self.role == "merge" else self.label


def conclude(
    grid: GridSpec,
    study: Study,
    *,
    suite: TaskSuite,
    alone: Sequence[Candidate],
    cells: Sequence[tuple[Cell, Candidate]],
) -> GridOutcome:
    """The outcome of a grid with all its models recorded. alone: the base, then the experts.

    Raises TaskError for a metric that cannot be normalised.
    """
    names = parent_labels(grid.models.sources)
    owners = {
        suite.metric(task.task, task.metric): names[grid.expert_of(task)] for task in grid.held_in
    }
    held_out = tuple(suite.metric(task.task, task.metric) for task in grid.held_out)
    models = _models_alone(study, alone, held_in=tuple(owners))
    merges = [_merge(study, cell, candidate, names, owners) for cell, candidate in cells]
    scored = {
        entry.name: study.items_of(entry.trial.key)
        for entry in (*models, *merges)
        if entry.trial.failure is None
    }
    references = {**owners, **dict.fromkeys(held_out, BASE)}
    scores = NormalisedScores(scored, references, seed=_SEED)
    summary = _Summary(scores, held_out)
    return GridOutcome(
        name=grid.name,
        split=grid.split,
        items={task: len(ids) for task, ids in alone[0].items.items()},
        held_in={str(metric): owner for metric, owner in owners.items()},
        held_out=tuple(str(metric) for metric in held_out),
        models=tuple(summary.model(entry) for entry in (*models, *merges)),
        rows=tuple(
            summary.row(
                label_of(method),
                size,
                [
                    entry
                    for entry in merges
                    if (entry.method, len(entry.experts)) == (label_of(method), size)
                ],
            )
            for method in grid.methods
            for size in grid.sizes
        ),
        notes=_notes(scores, merges),
    )


def _models_alone(
    study: Study, alone: Sequence[Candidate], *, held_in: tuple[Metric, ...]
) -> list[_Entry]:
    return [
        _Entry(
            label=candidate.label,
            role="expert" if place else "base",
            method="",
            experts=(candidate.label,) if place else (),
            seed=None,
            trial=study.trial(candidate.key),
            held_in=held_in,
        )
        for place, candidate in enumerate(alone)
    ]


def _merge(
    study: Study,
    cell: Cell,
    candidate: Candidate,
    names: Sequence[str],
    owners: Mapping[Metric, str],
) -> _Entry:
    experts = tuple(names[place] for place in cell.experts)
    return _Entry(
        label=candidate.label,
        role="merge",
        method=label_of(cell.method),
        experts=experts,
        seed=cell.seed,
        trial=study.trial(candidate.key),
        held_in=tuple(metric for metric, owner in owners.items() if owner in experts),
    )


class _Summary:
    """Models and rows of the outcome, by their normalised scores."""

    def __init__(self, scores: NormalisedScores, held_out: tuple[Metric, ...]) -> None:
        self._scores = scores
        self._held_out = held_out

    def model(self, entry: _Entry) -> ModelOutcome:
        """The outcome of one model."""
        trial = entry.trial
        return ModelOutcome(
            label=entry.label,
            role=entry.role,
            method=entry.method,
            experts=entry.experts,
            seed=entry.seed,
            candidate=str(trial.key),
            means=trial.means,
            normalised=self._normalised([entry]),
            failure=trial.failure,
        )

    def row(self, method: str, experts: int, entries: Sequence[_Entry]) -> Row:
        """The outcome of a method with a number of experts."""
        scored = [entry for entry in entries if entry.trial.failure is None]
        each = [self._normalised([entry]) for entry in scored]
        return Row(
            method=method,
            experts=experts,
            merges=len(entries),
            failed=len(entries) - len(scored),
            normalised=self._normalised(scored),
            spread_held_in=_deviation([scores.held_in for scores in each]),
            spread_held_out=_deviation([scores.held_out for scores in each]),
        )

    def _normalised(self, entries: Sequence[_Entry]) -> Normalised:
        scored = [entry for entry in entries if entry.trial.failure is None]
        return Normalised(
            held_in=self._scores.mean([_shares(entry, entry.held_in) for entry in scored]),
            held_out=self._scores.mean([_shares(entry, self._held_out) for entry in scored]),
        )


def _shares(entry: _Entry, metrics: Sequence[Metric]) -> list[Share]:
    return [Share(entry.name, metric) for metric in metrics]


def _deviation(intervals: Sequence[Interval | None]) -> float | None:
    values = [interval.value for interval in intervals if interval is not None]
    return statistics.stdev(values) if len(values) > 1 else None


def _notes(scores: NormalisedScores, merges: Sequence[_Entry]) -> tuple[str, ...]:
    left_out = [f"{reason}; the task is left out" for reason in scores.undefined.values()]
    failures = {
        f"{entry.label} failed: {entry.trial.failure}": None
        for entry in merges
        if entry.trial.failure is not None
    }
    return (*left_out, *failures)

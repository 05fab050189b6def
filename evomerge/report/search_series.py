"""The values of the figure of a search, for the report and for pages that draw it themselves.

Candidates in order, generations, baselines as lines with their intervals, stages; and where the
candidates of each generation lie in the space. Nothing here draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import EvomergeError
from evomerge.evaluate import Interval, Metric, Objective, TaskItems, means_of, summarise
from evomerge.report.tally import generations_of, model_alone, scores_are_shares
from evomerge.report.words import within_shares
from evomerge.study import Study, Trial

_MOST_MAPPED = 4000
"""Candidates that fix the axes of the map; more of them do not turn it."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A candidate with a score. place: in order of generation, from 1. height: as it is drawn."""

    place: int
    candidate: str
    generation: int
    score: float
    height: float
    items: int


@dataclass(frozen=True, kw_only=True)
class Cross:
    """A candidate that failed."""

    place: int
    candidate: str
    generation: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class GenerationPoint:
    """Mean and best of a generation, drawn in the middle of its candidates; heights as drawn."""

    number: int
    stage: int
    place: float
    mean: float
    best: float
    mean_height: float
    best_height: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """A baseline. alone: a single model, not a merge. interval: None where it cannot be told."""

    label: str
    candidate: str
    score: float
    items: int
    alone: bool
    means: Mapping[str, Mapping[str, float]]
    interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class SearchSeries:
    """The search so far. stages: (place of the first candidate, number of the stage from 0)."""

    dots: tuple[Dot, ...]
    crosses: tuple[Cross, ...]
    generations: tuple[GenerationPoint, ...]
    lines: tuple[Line, ...]
    stages: tuple[tuple[int, int], ...]
    shares: bool

    @property
    def means(self) -> tuple[float, ...]:
        """The means of the generations that have a score."""
        return tuple(each.mean for each in self.generations)


def height_of(score: float, shares: bool) -> float:
    """Where a score is drawn: an estimate of a share at the nearer end of [0, 1]."""
    return within_shares(score) if shares else score


def search_series(
    genomes: Sequence[Trial],
    baselines: Sequence[Trial],
    *,
    alone: Sequence[str] = (),
    shares: bool = False,
    intervals: Mapping[str, Interval] | None = None,
) -> SearchSeries:
    """The values of a search.

    alone: labels of the baselines that are single models. shares: whether scores are shares; an
    estimate outside [0, 1] is drawn at the nearer end. intervals: candidate -> interval.
    """
    places: dict[int, list[int]] = {}
    stage_of: dict[int, int] = {}
    begun: dict[int, int] = {}
    for place, trial in enumerate(genomes, start=1):
        places.setdefault(trial.key.generation, []).append(place)
        stage_of[trial.key.generation] = trial.stage
        begun.setdefault(trial.stage, place)
    return SearchSeries(
        dots=tuple(
            Dot(
                place=place,
                candidate=str(trial.key),
                generation=trial.key.generation,
                score=trial.score,
                height=height_of(trial.score, shares),
                items=trial.item_count,
            )
            for place, trial in enumerate(genomes, start=1)
            if trial.score is not None
        ),
        crosses=tuple(
            Cross(
                place=place,
                candidate=str(trial.key),
                generation=trial.key.generation,
                reason=trial.failure,
            )
            for place, trial in enumerate(genomes, start=1)
            if trial.failure is not None
        ),
        generations=tuple(
            GenerationPoint(
                number=each.number,
                stage=stage_of[each.number],
                place=sum(places[each.number]) / len(places[each.number]),
                mean=each.mean,
                best=each.best,
                mean_height=height_of(each.mean, shares),
                best_height=height_of(each.best, shares),
            )
            for each in generations_of(genomes)
            if each.mean is not None and each.best is not None
        ),
        lines=tuple(
            Line(
                label=trial.label,
                candidate=str(trial.key),
                score=trial.score,
                items=trial.item_count,
                alone=trial.label in alone,
                means=trial.means,
                interval=(intervals or {}).get(str(trial.key)),
            )
            for trial in baselines
            if trial.score is not None
        ),
        stages=tuple((place, stage) for stage, place in begun.items()),
        shares=shares,
    )


@dataclass(frozen=True, kw_only=True)
class PopulationSeries:
    """Where candidates are in the space, generation by generation.

    genes: their names. generations: their numbers. means, spreads: (genes, generations), of the
    values that people see. x, y: a point for each of `candidates`, on the two directions in which
    the candidates differ most; shares: how much of their variance lies on each.
    """

    genes: tuple[str, ...]
    generations: tuple[int, ...]
    means: tuple[tuple[float, ...], ...]
    spreads: tuple[tuple[float, ...], ...]
    candidates: tuple[str, ...]
    numbers: tuple[int, ...]
    scores: tuple[float | None, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    shares: tuple[float, float]


def population_series(genomes: Sequence[Trial]) -> PopulationSeries | None:
    """How the population moves; None before two candidates of one space are recorded.

    Of a search in stages: the last stage, because each has a space of its own.
    """
    known = [trial for trial in genomes if trial.genome and trial.parameters]
    members = [trial for trial in known if trial.stage == known[-1].stage]
    if len(members) < 2:
        return None
    genes = tuple(members[0].parameters)
    members = [trial for trial in members if tuple(trial.parameters) == genes]
    values = np.array([list(trial.parameters.values()) for trial in members], dtype=np.float64)
    numbers = np.array([trial.key.generation for trial in members])
    generations = sorted(set(numbers.tolist()))
    groups = [values[numbers == number] for number in generations]
    points, shares = _map(np.array([trial.genome for trial in members], dtype=np.float64))
    return PopulationSeries(
        genes=genes,
        generations=tuple(generations),
        means=_rows(np.stack([group.mean(axis=0) for group in groups], axis=1)),
        spreads=_rows(np.stack([group.std(axis=0) for group in groups], axis=1)),
        candidates=tuple(str(trial.key) for trial in members),
        numbers=tuple(numbers.tolist()),
        scores=tuple(trial.score for trial in members),
        x=tuple(points[:, 0].round(5).tolist()),
        y=tuple(points[:, 1].round(5).tolist()),
        shares=shares,
    )


def _map(genomes: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Points (candidates, 2) on the first two principal axes, and the variance on each."""
    centred = genomes - genomes.mean(axis=0)  # (candidates, genes)
    step = -(-len(centred) // _MOST_MAPPED)
    _, sizes, axes = np.linalg.svd(centred[::step], full_matrices=False)
    two = np.zeros((2, genomes.shape[1]))
    two[: min(2, len(axes))] = axes[:2]
    # The sign of an axis is arbitrary; this one does not change while candidates are added.
    heaviest = np.abs(two).argmax(axis=1)
    two *= np.where(two[np.arange(2), heaviest] < 0.0, -1.0, 1.0)[:, None]
    variance = sizes**2
    total = float(variance.sum()) or 1.0
    shares = [float(part) / total for part in (*variance[:2], 0.0, 0.0)]
    return centred @ two.T, (shares[0], shares[1])


def _rows(values: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.round(6).tolist())


def series_of(study: Study) -> dict[str, Any]:
    """The series of a record in plain values: `search`, `stages` (names), `population` or None."""
    job, trials = study.job, study.trials
    genomes = [trial for trial in trials if trial.kind == "genome"]
    baselines = [trial for trial in trials if trial.kind == "baseline"]
    search = search_series(
        genomes,
        baselines,
        alone=[trial.label for trial in baselines if model_alone(trial, job) is not None],
        shares=scores_are_shares(baselines, job),
        intervals=_intervals(study, baselines),
    )
    population = population_series(genomes)
    return {
        "search": asdict(search),
        "stages": [stage.name for stage in job.stages],
        "population": None if population is None else asdict(population),
    }


def _intervals(study: Study, baselines: Sequence[Trial]) -> dict[str, Interval]:
    """Candidate -> interval of its combined score, over the items that it was scored on."""
    job = study.job
    if job.mode != "single" or any(o.members for o in job.objectives):
        return {}
    try:
        objective = Objective.build(job.objectives, aggregate=job.aggregate, find=_metric)
    except EvomergeError:
        return {}
    found = {}
    for trial in baselines:
        items = study.found_items_of(trial.key) if trial.score is not None else None
        if not items or not _is_score(objective, items, trial):
            continue
        summary = summarise(
            trial.label, "baseline", items, objective=objective, seed=job.optimizer.seed
        )
        found[str(trial.key)] = summary.score
    return found


def _metric(task: str, name: str) -> Metric:
    """A metric whose direction is not known here; `_is_score` finds out whether it is this one."""
    return Metric(task=task, key=name.partition(",")[0], higher_is_better=True)


def _is_score(objective: Objective, items: Mapping[str, TaskItems], trial: Trial) -> bool:
    """Whether the objective gives the score that is recorded."""
    try:
        score = objective.score(means_of(items))
    except EvomergeError:
        return False
    return trial.score is not None and math.isclose(score, trial.score, rel_tol=1e-9, abs_tol=1e-9)

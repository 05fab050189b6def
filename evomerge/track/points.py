"""What a tracker shows of a search: points on two axes, computed from the record.

The number of a candidate is its place among all genomes in the order of generation and index. So a
point has the same number and the same values however often a search is stopped and resumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from evomerge.search import SearchOutcome
    from evomerge.study import Trial

Axis = Literal["candidate", "generation"]

MOST_COEFFICIENTS = 200
"""With more genes than this their values are left to the record; no one reads so many curves."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Values at one step of an axis: the number of a candidate, from 1, or of a generation.

    values: name, with its group before a slash -> a finite number. `AXIS/number` is the step.
    """

    axis: Axis
    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The last steps that a tracker has; 0 where it has none."""

    candidates: int = 0
    generations: int = 0

    def has(self, point: Point) -> bool:
        """Whether the tracker has a point already."""
        return point.step <= (self.candidates if point.axis == "candidate" else self.generations)

    def after(self, point: Point) -> Reached:
        """What is reached with one more point."""
        if point.axis == "candidate":
            return Reached(candidates=point.step, generations=self.generations)
        return Reached(candidates=self.candidates, generations=point.step)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The record at one moment.

    trials: in the order of the record. complete: the last generation whose candidates are all
    recorded.
    """

    trials: tuple[Trial, ...] = field(repr=False)
    complete: int


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What a search found. values: numbers. texts: the headline, and each recipe as YAML."""

    values: Mapping[str, float]
    texts: Mapping[str, str]


def plain_name(name: str) -> str:
    """A part of a value's name with the letters that every tracker takes."""
    return re.sub(r"[^\w.\-]+", "_", name).strip("_") or "_"


def names_of(wanted: Iterable[str]) -> dict[str, str]:
    """name -> its plain form; those that would be the same are numbered."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(wanted):
        shown, number = plain_name(name), 1
        while shown in taken:
            number += 1
            shown = f"{plain_name(name)}_{number}"
        taken.add(shown)
        names[name] = shown
    return names


def points_of(snapshot: Snapshot, *, reached: Reached) -> Iterator[Point]:
    """The points of a record that a tracker does not have yet, in order."""
    baselines = [trial for trial in snapshot.trials if trial.kind == "baseline"]
    genomes = [trial for trial in snapshot.trials if trial.kind == "genome"]
    curve = _Curve(baselines)
    for generation, group in groupby(genomes, key=lambda trial: trial.key.generation):
        trials = list(group)
        whole = generation <= snapshot.complete
        for trial in trials if whole else _unbroken(trials):
            curve.add(trial)
            if curve.candidates > reached.candidates:
                yield curve.candidate(trial)
        if whole and generation > reached.generations:
            yield curve.generation(generation, trials)


def _unbroken(trials: Sequence[Trial]) -> Iterator[Trial]:
    """The candidates of a generation before the first that has no result yet."""
    for place, trial in enumerate(trials):
        if trial.key.place != place:
            return
        yield trial


class _Curve:
    """The candidates so far."""

    def __init__(self, baselines: Sequence[Trial]) -> None:
        self._baselines = baselines
        self._best: float | None = None
        self._seconds = sum(trial.cost.merge_s + trial.cost.evaluate_s for trial in baselines)
        self._items = sum(trial.item_count for trial in baselines)
        self._failed = 0
        self.candidates = 0

    def add(self, trial: Trial) -> None:
        """Take the next candidate."""
        self.candidates += 1
        self._seconds += trial.cost.merge_s + trial.cost.evaluate_s
        self._items += trial.item_count
        self._failed += trial.failure is not None
        if trial.score is not None:
            self._best = trial.score if self._best is None else max(self._best, trial.score)

    def candidate(self, trial: Trial) -> Point:
        """The point of the candidate that was taken last."""
        values = {
            "score": trial.score,
            "best": self._best,
            "generation": trial.key.generation,
            "failed": trial.failure is not None,
            "items": trial.item_count,
            "merge_s": trial.cost.merge_s,
            "evaluate_s": trial.cost.evaluate_s,
        }
        return _point("candidate", self.candidates, _grouped("candidate", values))

    def generation(self, number: int, trials: Sequence[Trial]) -> Point:
        """The point of a generation, whose candidates are the last that were taken."""
        scored = [trial for trial in trials if trial.score is not None]
        best = max(scored, key=_score, default=None)
        values = {
            "best": None if best is None else best.score,
            "mean": _mean([_score(trial) for trial in scored]),
            "best_so_far": self._best,
            "scored": len(scored),
            "failed": len(trials) - len(scored),
        }
        spent = {
            "worker_hours": self._seconds / 3600.0,
            "items": self._items,
            "candidates": self.candidates,
            "failed": self._failed,
        }
        return _point(
            "generation",
            number,
            {
                **_grouped("generation", values),
                **_grouped("cost", spent),
                **self._tasks(scored, best),
                **_coefficients(scored, best),
            },
        )

    def _tasks(self, scored: Sequence[Trial], best: Trial | None) -> dict[str, float | None]:
        """Scores of each task: of the generation, of its best, and of every baseline beside."""
        labels = names_of(["mean", "best", *(trial.label for trial in self._baselines)])
        curves = {labels[trial.label]: trial for trial in self._baselines}
        if best is not None:
            curves["best"] = best
        metrics = list(
            dict.fromkeys(
                (task, metric)
                for trial in (*self._baselines, *scored)
                for task, means in trial.means.items()
                for metric in means
            )
        )
        shown = names_of(f"{task}.{metric}" for task, metric in metrics)
        found: dict[str, float | None] = {}
        for task, metric in metrics:
            group = f"task_{shown[f'{task}.{metric}']}"
            means = [trial.means.get(task, {}).get(metric) for trial in scored]
            found[f"{group}/mean"] = _mean([mean for mean in means if mean is not None])
            for label, trial in curves.items():
                found[f"{group}/{label}"] = trial.means.get(task, {}).get(metric)
        return found


def _coefficients(scored: Sequence[Trial], best: Trial | None) -> dict[str, float | None]:
    """The values of the genes: the best candidate's, and the mean of the generation."""
    if best is None or not 0 < len(best.parameters) <= MOST_COEFFICIENTS:
        return {}
    shown = names_of(best.parameters)
    found: dict[str, float | None] = {}
    for gene, value in best.parameters.items():
        found[f"coefficient_best/{shown[gene]}"] = value
        values = [trial.parameters.get(gene) for trial in scored]
        found[f"coefficient_mean/{shown[gene]}"] = _mean([v for v in values if v is not None])
    return found


def ending_of(outcome: SearchOutcome) -> Ending:
    """The outcome of a search, a winner or a front, as trackers show it."""
    from evomerge.search import Selection

    if isinstance(outcome, Selection):
        gain = outcome.gain
        values = {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
        tested = [(outcome.winner, outcome.test[0])]
        recipes = {"winner": outcome.recipe}
    else:
        volume = outcome.gain
        values = {"points": float(len(outcome.points))}
        if volume is not None:
            values |= {"gain": volume.value, "gain_low": volume.low, "gain_high": volume.high}
        tested = [(point.label, point.test) for point in outcome.points]
        recipes = {point.label: point.recipe for point in outcome.points}
    labels = names_of(label for label, _ in tested)
    for label, summary in tested:
        group = "test" if isinstance(outcome, Selection) else f"test_{labels[label]}"
        values[f"{group}.score"] = summary.score.value
        for task, metrics in summary.tasks.items():
            for metric, interval in metrics.items():
                values[f"{group}.{plain_name(f'{task}.{metric}')}"] = interval.value
    shown = names_of(recipes)
    return Ending(
        values={f"outcome/{name}": value for name, value in values.items()},
        texts={
            "headline": outcome.headline(),
            **{f"recipe_{shown[name]}": recipe.to_yaml() for name, recipe in recipes.items()},
        },
    )


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _grouped(group: str, values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {f"{group}/{name}": value for name, value in values.items()}


def _point(axis: Axis, step: int, values: Mapping[str, float | None]) -> Point:
    known = {name: float(value) for name, value in values.items() if value is not None}
    return Point(axis=axis, step=step, values={f"{axis}/number": float(step), **known})

"""Counts and averages of a record that the terminal, the status and the report all show.

They say nothing about the winner; the final selection decides it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.evaluate import CandidateKey, Phase
from evomerge.job import BudgetSpec, JobSpec
from evomerge.study import SELECTION, STAGES, Study, Trial

SearchPhase = Phase | Literal["not started", "finished"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The current stage of a job with several stages; number: from 1."""

    number: int
    count: int
    name: str

    def __str__(self) -> str:
        return f"stage {self.number} of {self.count}: {self.name}"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The results of one generation.

    mean, best: of the combined scores of the scored candidates; None when all failed.
    least, most: items that a candidate was scored on; in a race losers have fewer.
    """

    number: int
    scored: int
    failed: int
    mean: float | None
    best: float | None
    least: int
    most: int


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The cost of candidates: their number, their items, and wall seconds of workers by part.

    hops, shared_hops: see `evaluate.Cost`.
    """

    candidates: int
    failed: int
    items: int
    merge_s: float
    forward_s: float
    other_s: float
    hops: int = 0
    shared_hops: int = 0

    @property
    def worker_s(self) -> float:
        """Seconds of all parts, summed over workers."""
        return self.merge_s + self.forward_s + self.other_s

    @property
    def shared_share(self) -> float | None:
        """Share of the hops that shared prefixes saved; None where no route was run."""
        return self.shared_hops / self.hops if self.hops else None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit of the budget and how much of it is used, in its own unit."""

    unit: Literal["candidates", "hours", "items"]
    used: float
    most: float

    @property
    def share(self) -> float:
        """The used share, at most 1 (a generation is completed, so more than that may be used)."""
        return min(1.0, self.used / self.most)

    def __str__(self) -> str:
        if self.unit == "hours":
            return f"{self.used:.2f} of {self.most:g} worker hours"
        return f"{self.used:,.0f} of {self.most:,.0f} {self.unit}"


def phase_of(study: Study) -> SearchPhase:
    """How far a search is, by its record.

    A search that was extended after its selection is in the search phase again until the next
    selection.
    """
    trials = study.trials
    if not trials:
        return "not started"
    last = max(trial.key for trial in trials)
    if generations_selected(study) == last.generation:
        return "finished"
    final = [trial.key for trial in finalists_after(trials, last.generation)]
    return min(final, default=last).phase


def generations_selected(study: Study) -> int | None:
    """After how many generations the noted selection was made; None before there is one."""
    noted = study.noted(SELECTION)
    return None if noted is None else CandidateKey(**noted["test_key"]).selected_after


def stage_of(study: Study) -> Stage | None:
    """The stage that a search is in, or that it ended in; None where the job has no stages."""
    stages = study.job.stages
    if not stages:
        return None
    ended = len(study.noted(STAGES) or ())
    return Stage(number=ended + 1, count=len(stages), name=stages[ended].name)


def finalists_after(trials: Iterable[Trial], generations: int) -> tuple[Trial, ...]:
    """Finalists of the selection that was made after `generations` generations."""
    return tuple(
        trial
        for trial in trials
        if trial.key.generation < 0 and trial.key.selected_after == generations
    )


def generations_of(trials: Iterable[Trial]) -> tuple[Generation, ...]:
    """The optimiser's generations in order; baselines, elites and finalists are left out."""
    populations: dict[int, list[Trial]] = {}
    for trial in trials:
        if trial.key.generation > 0 and trial.kind == "genome":
            populations.setdefault(trial.key.generation, []).append(trial)
    return tuple(_generation(number, populations[number]) for number in sorted(populations))


def _generation(number: int, trials: Sequence[Trial]) -> Generation:
    scores = [trial.score for trial in trials if trial.score is not None]
    return Generation(
        number=number,
        scored=len(scores),
        failed=sum(trial.failure is not None for trial in trials),
        mean=sum(scores) / len(scores) if scores else None,
        best=max(scores, default=None),
        least=min(trial.item_count for trial in trials),
        most=max(trial.item_count for trial in trials),
    )


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the highest score, the earliest of equal ones; None when none has a score."""
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: trial.score or 0.0, default=None)


def model_alone(trial: Trial, job: JobSpec) -> str | None:
    """The reference of the job's model that a baseline is, unmerged; None for a merge."""
    references = trial.recipe.references
    known = (job.models.base, *job.models.sources)
    return references[0] if len(references) == 1 and references[0] in known else None


def parents_among(trials: Iterable[Trial], job: JobSpec) -> tuple[Trial, ...]:
    """The baselines that are one of the job's sources on its own."""
    return tuple(
        trial
        for trial in trials
        if trial.kind == "baseline" and model_alone(trial, job) in job.models.sources
    )


def scores_are_shares(trials: Iterable[Trial], job: JobSpec) -> bool:
    """Whether scores are in [0, 1], judged by the baselines' plain means.

    The scores of candidates cannot show it: they are estimates, and can be outside.
    """
    plain = [trial for trial in trials if trial.kind == "baseline" and trial.score is not None]
    named = {
        (task, objective.metric.partition(",")[0])
        for objective in job.objectives
        for task in objective.tasks
    }
    values = [
        value
        for trial in plain
        for task, means in trial.means.items()
        for metric, value in means.items()
        if (task, metric.partition(",")[0]) in named
    ]
    values += [trial.score for trial in plain if trial.score is not None]
    return bool(values) and all(0.0 <= value <= 1.0 for value in values)


def searched(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that the budget counts: the optimiser's candidates, and elites scored again."""
    return [trial for trial in trials if trial.kind in ("genome", "elite")]


def spending_of(trials: Iterable[Trial]) -> Spent:
    """Sums over trials, failed ones included; a candidate that was scored again counts once."""
    counted = list(trials)
    forward = sum(trial.cost.forward_s for trial in counted)
    return Spent(
        candidates=sum(trial.kind != "elite" for trial in counted),
        failed=sum(trial.failure is not None for trial in counted),
        items=sum(trial.cost.items for trial in counted),
        merge_s=sum(trial.cost.merge_s for trial in counted),
        forward_s=forward,
        other_s=max(0.0, sum(trial.cost.evaluate_s for trial in counted) - forward),
        hops=sum(trial.cost.hops for trial in counted),
        shared_hops=sum(trial.cost.shared_hops for trial in counted),
    )


def limits_of(budget: BudgetSpec, spent: Spent) -> tuple[Limit, ...]:
    """Every limit of the budget, the most used one first."""
    limits: list[Limit] = []
    if budget.candidates is not None:
        limits.append(Limit(unit="candidates", used=spent.candidates, most=budget.candidates))
    if budget.hours is not None:
        limits.append(Limit(unit="hours", used=spent.worker_s / 3600, most=budget.hours))
    if budget.items is not None:
        limits.append(Limit(unit="items", used=spent.items, most=budget.items))
    return tuple(sorted(limits, key=lambda limit: -limit.share))


def remaining_worker_s(
    budget: BudgetSpec, spent: Spent, *, candidate_s: float, candidate_items: float
) -> float:
    """Worker seconds until the first limit, by the seconds and items that a candidate takes."""
    left = [float("inf")]
    if budget.candidates is not None:
        left.append((budget.candidates - spent.candidates) * candidate_s)
    if budget.hours is not None:
        left.append(budget.hours * 3600 - spent.worker_s)
    if budget.items is not None:
        left.append((budget.items - spent.items) / max(1.0, candidate_items) * candidate_s)
    return max(0.0, min(left))


def failures_of(trials: Iterable[Trial]) -> tuple[tuple[str, int], ...]:
    """Reasons why candidates failed and how many did so, the most frequent first."""
    reasons = Counter(trial.failure for trial in trials if trial.failure is not None)
    return tuple(sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0])))

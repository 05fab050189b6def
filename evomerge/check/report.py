"""The report on a prepared job: what a search would score, and about what it takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evomerge.check.memory import Memory, memory_of, parameters_of
from evomerge.check.plan import Plan, plan_job
from evomerge.check.timing import Timing, Untimed, measure
from evomerge.evaluate import Say, ShownItem, Split, TaskFacts, leaves_of
from evomerge.job import ComputeSpec, DeviceGroup, JobSpec, ObjectiveSpec
from evomerge.search import Forecast, PhaseForecast, forecast
from evomerge.workers import PreparedJob

SPLITS: tuple[Split, ...] = ("search", "validation", "test")

SHOWN_ITEMS = 3
"""Items of each task whose texts are in the report."""

_Z95 = 1.959964
"""The 97.5% point of the standard normal distribution."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model of the job. part: `base` or `source`."""

    part: str
    reference: str
    parameters: int
    dtype: str
    layers: int


@dataclass(frozen=True, kw_only=True)
class Goal:
    """An objective or a constraint. wanted: its weight, or the level to keep, in words.

    members: of a group, its tasks; empty for a task. weight_by_size: whether they weigh by their
    items.
    """

    part: str
    name: str
    wanted: str
    members: tuple[str, ...]
    weight_by_size: bool


@dataclass(frozen=True, kw_only=True)
class TaskCheck:
    """A task of the job.

    metrics: those of objectives and constraints; for a task that is only reported, all usable ones.
    items: split -> number. shown_as_examples: items that are few-shot examples and never scored.
    half_width: split -> half the width of a 95% interval of a share near 0.5 on all its items.
    """

    name: str
    metrics: tuple[str, ...]
    reported_only: bool
    items: Mapping[str, int]
    shown_as_examples: int
    facts: TaskFacts
    chat_template: bool
    shown: tuple[ShownItem, ...]
    half_width: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Hours:
    """Hours of the search where it was timed: the least and the most of each phase, in order."""

    phases: tuple[tuple[float, float], ...]
    workers: int

    @property
    def total(self) -> tuple[float, float]:
        """Hours on the clock, where the workers share the candidates of every phase."""
        return (
            sum(least for least, _ in self.phases) / self.workers,
            sum(most for _, most in self.phases) / self.workers,
        )


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What a search of a job would score, and about what that takes on this machine.

    models: the base first. goals: objectives, then constraints. combined: how the objectives become
    one score, or `front`. tasks: of the job, those that are only reported last. forecast: models
    and items of every phase. within, items_within: a score near 0.5 is known to `within` with so
    many items. timing, hours: None if nothing was timed, or if the time of the search is not known.
    plan: on devices that were named; nothing of this machine is timed then but for it. notes: on
    what was found, a sentence each.
    """

    job: str
    models: tuple[ModelFacts, ...]
    goals: tuple[Goal, ...]
    combined: str
    tasks: tuple[TaskCheck, ...]
    forecast: Forecast
    within: float
    items_within: int
    timing: Timing | None
    hours: Hours | None
    memory: Memory
    plan: Plan | None = None
    notes: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """The report for a terminal."""
        from evomerge.check.words import lines_of

        return lines_of(self)

    def to_json(self) -> dict[str, Any]:
        """The report in plain values."""
        document = asdict(self)
        for phase, written in zip(
            self.forecast.phases, document["forecast"]["phases"], strict=True
        ):
            written["total_items"] = list(phase.total_items)
        document["forecast"]["total_items"] = list(self.forecast.total_items)
        if self.hours is not None:
            document["hours"]["total"] = list(self.hours.total)
        return document

    def __str__(self) -> str:
        return "\n".join(self.lines())


def half_width(items: int) -> float:
    """Half the width of a 95% interval of a share near 0.5, which is where it is widest."""
    return _Z95 * 0.5 / math.sqrt(items)


def items_for(within: float) -> int:
    """Items with which a share near 0.5 is known to `within`, in (0, 0.5)."""
    assert 0.0 < within < 0.5, within
    return math.ceil((_Z95 * 0.5 / within) ** 2)


def check_job(
    preparation: PreparedJob,
    *,
    within: float,
    timing_s: float | None,
    say: Say,
    ray_address: str | None = None,
    devices: tuple[DeviceGroup, ...] = (),
    compute: ComputeSpec | None = None,
) -> CheckReport:
    """The report on a prepared job.

    within: half the width of the interval that is wanted. timing_s: seconds for the timing; None to
    leave it out. say: called with what the worker has to say. ray_address: of the cluster whose
    time and memory are asked. devices: to plan for; then no model is loaded. compute: of the job as
    it was written, for the plan. Raises InputError, SelfCheckError, WorkerError.
    """
    wanted = items_for(within)
    notes = list(preparation.notes)
    timing = None
    plan = None
    if devices:
        plan, planned = plan_job(
            preparation, devices, compute=compute or preparation.job.compute, limit_s=timing_s
        )
    elif timing_s is not None:
        try:
            timing = measure(preparation, limit_s=timing_s, say=say, ray_address=ray_address)
        except Untimed as error:
            notes.append(f"nothing could be timed: {error}")
    if plan is None:
        planned = forecast(preparation, None if timing is None else timing.candidate_s)
    return CheckReport(
        job=preparation.job.name,
        models=_models(preparation),
        goals=tuple(_goals(preparation.job)),
        combined="front" if preparation.job.mode == "pareto" else preparation.job.aggregate,
        tasks=tuple(_task(preparation, task) for task in preparation.job.all_tasks),
        forecast=planned,
        within=within,
        items_within=wanted,
        timing=timing,
        hours=None if timing is None else _hours(planned.phases, timing),
        memory=memory_of(preparation, ray_address=ray_address),
        plan=plan,
        notes=tuple(notes),
    )


def _models(preparation: PreparedJob) -> tuple[ModelFacts, ...]:
    return tuple(
        ModelFacts(
            part="base" if reference == preparation.job.models.base else "source",
            reference=reference,
            parameters=parameters_of(model.source),
            dtype=model.source.structure.dtype,
            layers=model.source.structure.depth,
        )
        for reference, model in preparation.alone.items()
    )


def _goals(job: JobSpec) -> Iterator[Goal]:
    for scored in job.scored:
        if isinstance(scored, ObjectiveSpec):
            part, wanted = "objective", f"weight {scored.weight:g}"
        else:
            of = "" if scored.of is None else f" of the {scored.of.replace('_', ' ')}'s score"
            part, wanted = "constraint", f"at least {scored.at_least:g}{of}"
        yield Goal(
            part=part,
            name=f"{scored.task}/{scored.metric}",
            wanted=wanted,
            members=scored.members,
            weight_by_size=scored.weight_by_size,
        )


def _task(preparation: PreparedJob, task: str) -> TaskCheck:
    suite, job = preparation.suite, preparation.job
    used = leaves_of(preparation.objective.metrics)
    reported = task not in job.search_tasks
    named = tuple(dict.fromkeys(metric.key for metric in used if metric.task == task))
    items: dict[str, int] = {
        split: len(suite.items(task, split)) for split in SPLITS if split == "test" or not reported
    }
    pool = suite.items(task, "test" if reported else "search")
    count = min(SHOWN_ITEMS, len(pool))
    return TaskCheck(
        name=task,
        metrics=tuple(suite.metrics(task)) if reported else named,
        reported_only=reported,
        items=items,
        shown_as_examples=suite.size(task) - len(suite.scored(task)),
        facts=suite.facts(task),
        chat_template=job.evaluation.apply_chat_template,
        shown=suite.show(task, [pool[place * len(pool) // count] for place in range(count)]),
        half_width={split: half_width(number) for split, number in items.items()},
    )


def _hours(phases: tuple[PhaseForecast, ...], timing: Timing) -> Hours:
    each = [timing.candidate_s(phase.items, merges=phase.parts) / 3600 for phase in phases]
    return Hours(
        phases=tuple(
            (phase.models[0] * hours, phase.models[1] * hours)
            for phase, hours in zip(phases, each, strict=True)
        ),
        workers=timing.workers,
    )

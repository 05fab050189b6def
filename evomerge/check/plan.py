"""The plan of a search on named devices: memory, disk, work, hours and cost, before anything loads.

It rests on the headers of the models' files, the encoded tasks, data sheets, and for the processor
on a measurement of some seconds. Every number that is not counted is a range, and every assumption
is listed with its source.
"""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from evomerge.check.fit import CACHED_SHARE, Placed, findings_of, place
from evomerge.check.footprint import Footprint, footprint_of
from evomerge.check.plan_assumptions import Assumption, assumptions_of
from evomerge.check.rehearsal import Rehearsal, Unmeasured, rehearse, tasks_s
from evomerge.check.roofline import Moved, merge_s, moved_on, part_s, passes_of
from evomerge.check.workload import HIGH, Work, expected_answers, part_of, work_of
from evomerge.errors import InputError
from evomerge.job import HERE, ComputeSpec, DeviceGroup
from evomerge.search import Forecast, PhaseForecast, forecast
from evomerge.workers import PreparedJob

Span = tuple[float, float]
"""The least and the most."""

START_S = (10.0, 60.0)
"""Seconds of a search before its first score: loading, self-check, first merges; an assumption."""

GPU_START_S = (20.0, 120.0)
"""As START_S on a GPU, where merges are compiled first: 22 s of that were measured on one H200."""

OWN = (1.0, 4.0)
"""Work beside the passes for an item, as multiples of what the tasks' own code takes: on a
processor, planning passes and keeping answers takes some three times as much."""

BUSY = (0.85, 1.3)
"""What a measured time is multiplied with for the ends of its range; an assumption."""

_MOST_STEPS = 20_000
"""Models that are given to workers one by one; of more, the last one hardly counts."""


@dataclass(frozen=True, kw_only=True)
class DevicePlan:
    """What one kind of device does.

    workers: in all; of them, device_workers share one device. needed_bytes: the least a worker
    needs of memory_bytes. moved: by one merge. merge_s: of one. candidate_s: of a candidate of the
    search, its merges included; None where a worker does not fit or was not measured. price: of a
    device for an hour.
    """

    name: str
    count: int
    workers: int
    device_workers: float
    needed_bytes: int
    memory_bytes: int
    fits: bool
    moved: Moved
    merge_s: Span | None
    candidate_s: Span | None
    price: float


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """One phase of the search.

    models: the least and the most. parts: of a model's items, with a merge each. work: of one part.
    passes: over texts, and steps of answers, of one model on a GPU. hours: on the clock.
    """

    phase: str
    stage: str
    models: tuple[int, int]
    parts: int
    work: Work
    passes: tuple[int, int]
    hours: Span | None


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes on disk: the models' files, statistics, and what a search and an export add."""

    files_bytes: int
    statistics_bytes: int
    cache_bytes: int
    record_bytes: int
    export_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a search on devices.

    hours, cost: of the whole search; None where nothing fits. cut_hours: the most if every answer
    ran to its limit. host_bytes: memory of the machine that keeps all files in it, with its
    workers. findings: what does not fit or is left unused, and what to change.
    """

    devices: tuple[DevicePlan, ...]
    footprint: Footprint
    phases: tuple[PhasePlan, ...]
    disk: Disk
    host_bytes: int
    hours: Span | None
    cut_hours: float | None
    cost: Span | None
    findings: tuple[str, ...]
    assumptions: tuple[Assumption, ...]


Seconds = Callable[[Mapping[str, int], int], Span]
"""(items of each task, parts) -> seconds of a model, its merges included."""


def plan_job(
    preparation: PreparedJob,
    groups: tuple[DeviceGroup, ...],
    *,
    compute: ComputeSpec,
    limit_s: float | None,
) -> tuple[Plan, Forecast]:
    """The plan, and the forecast that it is made of.

    compute: as the user wrote it; the preparation may name another device. limit_s: for the
    measurement here; None to leave it out. Raises InputError.
    """
    footprint = footprint_of(preparation)
    answers = expected_answers(preparation)
    first = forecast(preparation, lambda items: 1.0)
    searched = next(phase for phase in first.phases if phase.phase == "search")
    part = part_of(preparation, searched.items, parts=searched.parts)
    own = _own_s(preparation, part, measured=limit_s is not None)
    rehearsal, findings = _rehearsed(preparation, footprint, groups, part, answers, limit_s)
    page = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    placed = place(groups, footprint, compute, here_bytes=page)
    works: dict[tuple[tuple[str, int], ...], Work] = {}

    def work_for(items: Mapping[str, int], parts: int) -> Work:
        asked = part_of(preparation, items, parts=parts)
        key = tuple((task, len(ids)) for task, ids in asked.items())
        if key not in works:
            works[key] = work_of(preparation.suite, asked, answers)
        return works[key]

    seconds = [_seconds_on(on, footprint, rehearsal, own, work_for) for on in placed]
    useful = [(on, time) for on, time in zip(placed, seconds, strict=True) if time and on.workers]

    def middle(items: Mapping[str, int]) -> float:
        spans = [time(items, 1) for _, time in useful]
        return sum(math.sqrt(least * most) for least, most in spans) / len(spans)

    planned = forecast(preparation, middle if useful else None)
    phases = tuple(_phase(phase, useful, work_for) for phase in planned.phases)
    hours = _total(phases, placed) if useful else None
    unknown = [stage for stage in planned.stages if stage.generations is None]
    findings += tuple(findings_of(placed, footprint, compute, models=len(preparation.sources)))
    findings += tuple(_idle(placed, searched))
    return Plan(
        devices=tuple(
            _device(on, footprint, time, searched, rehearsal)
            for on, time in zip(placed, seconds, strict=True)
        ),
        footprint=footprint,
        phases=phases,
        disk=Disk(
            files_bytes=footprint.files_bytes,
            statistics_bytes=footprint.statistics_bytes,
            cache_bytes=footprint.cache_bytes,
            record_bytes=footprint.record_bytes(planned.total_items[1]),
            export_bytes=footprint.export_bytes,
        ),
        host_bytes=_host_bytes(footprint, placed),
        hours=None if unknown else hours,
        cut_hours=None if hours is None or unknown else _cut(hours, phases, rehearsal, placed),
        cost=None if hours is None or unknown else _cost(hours, groups),
        findings=findings,
        assumptions=assumptions_of(
            groups, footprint, rehearsal, answers, own=own, timed=limit_s is not None
        ),
    ), planned


def _rehearsed(
    preparation: PreparedJob,
    footprint: Footprint,
    groups: tuple[DeviceGroup, ...],
    part: Mapping[str, tuple[int, ...]],
    answers: Mapping[str, int],
    limit_s: float | None,
) -> tuple[Rehearsal | None, tuple[str, ...]]:
    """The measurement of this machine if it is among the devices."""
    if all(group.device is not None for group in groups):
        return None, ()
    if limit_s is None:
        raise InputError(
            f"devices: {HERE} is this machine, whose speed is measured; leave --no-timing out"
        )
    try:
        return rehearse(preparation, footprint, part=part, answers=answers, limit_s=limit_s), ()
    except Unmeasured as error:
        return None, (f"{HERE}: nothing could be measured: {error}; name GPUs for this model",)


def _own_s(
    preparation: PreparedJob, part: Mapping[str, tuple[int, ...]], *, measured: bool
) -> Span:
    """Seconds that the tasks' own code takes for an item, beside a GPU."""
    if not measured:
        return 0.1e-3, 5e-3
    tasks_s(preparation.suite, part)
    least, most = tasks_s(preparation.suite, part)
    count = max(1, sum(map(len, part.values())))
    return OWN[0] * least / count, OWN[1] * most / count


def _seconds_on(
    on: Placed,
    footprint: Footprint,
    rehearsal: Rehearsal | None,
    own_s: Span,
    work_for: Callable[[Mapping[str, int], int], Work],
) -> Seconds | None:
    """How long a model takes on a device; None where that is not known."""
    if not on.fits:
        return None
    device = on.group.device
    if device is None:
        return None if rehearsal is None else _here(rehearsal, max(1.0, on.each))
    merge = merge_s(footprint, device, moved_on(footprint, on.memory_bytes))

    def seconds(items: Mapping[str, int], parts: int) -> Span:
        work = work_for(items, parts)
        scored = part_s(work, footprint, device)
        least, most = (
            parts * (merge[end] + scored[end] + work.items * own_s[end]) for end in (0, 1)
        )
        # Workers that share a device take turns at worst.
        return least, most * max(1.0, on.each)

    return seconds


def _here(rehearsal: Rehearsal, sharing: float) -> Seconds:
    longer = (1.0, 1.0 + rehearsal.answering * (HIGH - 1.0))

    def seconds(items: Mapping[str, int], parts: int) -> Span:
        scored = rehearsal.part_s({task: count / parts for task, count in items.items()})
        least, most = (
            BUSY[end] * parts * (scored[end] * longer[end] + rehearsal.merge_s[end])
            for end in (0, 1)
        )
        return least * sharing, most * sharing

    return seconds


def _phase(
    phase: PhaseForecast,
    useful: list[tuple[Placed, Seconds]],
    work_for: Callable[[Mapping[str, int], int], Work],
) -> PhasePlan:
    work = work_for(phase.items, phase.parts)
    passes, steps = passes_of(work)
    hours = None
    if useful:
        least, most = (
            _makespan(
                phase,
                phase.models[end],
                [
                    time(phase.items, phase.parts)[end]
                    for on, time in useful
                    for _ in range(on.workers)
                ],
            )
            / 3600
            for end in (0, 1)
        )
        hours = least, most
    return PhasePlan(
        phase=phase.phase,
        stage=phase.stage,
        models=phase.models,
        parts=phase.parts,
        work=work,
        passes=(phase.parts * passes, phase.parts * steps),
        hours=hours,
    )


def _makespan(phase: PhaseForecast, models: int, seconds: list[float]) -> float:
    """Seconds until the models are scored, if a free worker takes the next one of a group.

    seconds: of a model on each worker.
    """
    together = min(models, phase.at_once)
    if together == 0:
        return 0.0
    if together * len(seconds) > _MOST_STEPS**2 or together > _MOST_STEPS:
        return models / sum(1 / each for each in seconds)
    ends = [(each, each) for each in seconds]
    heapq.heapify(ends)
    last = 0.0
    for _ in range(together):
        end, each = ends[0]
        last = max(last, end)
        heapq.heapreplace(ends, (end + each, each))
    return last * models / together


def _total(phases: tuple[PhasePlan, ...], placed: tuple[Placed, ...]) -> Span:
    start_s = GPU_START_S if any(on.group.device for on in placed) else START_S
    least, most = (
        start_s[end] / 3600 + sum(phase.hours[end] for phase in phases if phase.hours)
        for end in (0, 1)
    )
    return least, most


def _cut(
    hours: Span,
    phases: tuple[PhasePlan, ...],
    rehearsal: Rehearsal | None,
    placed: tuple[Placed, ...],
) -> float:
    """The most hours if every answer ran to its limit; answers are all of the time at worst."""
    share = 1.0 if rehearsal is None or len(placed) > 1 else rehearsal.answering
    cut = max((phase.work.cut for phase in phases), default=1.0)
    return hours[1] * max(1.0, 1.0 + share * (cut / HIGH - 1.0))


def _cost(hours: Span, groups: tuple[DeviceGroup, ...]) -> Span:
    each = sum(group.count * group.price for group in groups)
    return hours[0] * each, hours[1] * each


def _idle(placed: tuple[Placed, ...], searched: PhaseForecast) -> Iterator[str]:
    workers = sum(on.workers for on in placed if on.fits)
    if workers > searched.at_once:
        yield (
            f"{workers - searched.at_once} of {workers} workers have nothing to do in the search: "
            f"a generation has {searched.at_once} candidates; take fewer devices, or set "
            f"optimizer.population to {workers}"
        )


def _host_bytes(footprint: Footprint, placed: tuple[Placed, ...]) -> int:
    workers = sum(on.workers for on in placed)
    return workers * footprint.host_bytes + int(footprint.files_bytes / CACHED_SHARE)


def _device(
    on: Placed,
    footprint: Footprint,
    time: Seconds | None,
    searched: PhaseForecast,
    rehearsal: Rehearsal | None,
) -> DevicePlan:
    device = on.group.device
    if device is None:
        moved = Moved(resident=0, streamed=footprint.sources_bytes, written=footprint.written_bytes)
        merge = None if rehearsal is None else rehearsal.merge_s
    else:
        moved = moved_on(footprint, on.memory_bytes)
        merge = merge_s(footprint, device, moved)
    return DevicePlan(
        name=on.group.name,
        count=on.group.count,
        workers=on.workers,
        device_workers=on.each,
        needed_bytes=on.needed_bytes,
        memory_bytes=on.memory_bytes,
        fits=on.fits,
        moved=moved,
        merge_s=merge if on.fits else None,
        candidate_s=None if time is None else time(searched.items, searched.parts),
        price=on.group.price,
    )

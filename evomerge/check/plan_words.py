"""The plan in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evomerge.check.sizes import seconds_text, size_text
from evomerge.report import count_text

if TYPE_CHECKING:
    from evomerge.check.plan import PhasePlan, Plan, Span


def plan_lines(plan: Plan) -> Iterator[str]:
    """The whole plan, line by line."""
    yield from _memory(plan)
    yield from _disk(plan)
    yield from _work(plan)
    yield from _hours(plan)
    if plan.findings:
        yield "what does not fit or is left unused"
        yield from (f"  {finding}" for finding in plan.findings)
    yield "the plan rests on"
    yield from (f"  {found.what} ({found.source})" for found in plan.assumptions)


def _memory(plan: Plan) -> Iterator[str]:
    of = plan.footprint
    yield "memory of a worker"
    held = "the layers of all models" if of.routes else "one model"
    yield (
        f"  {held} in {of.dtype}: {size_text(of.live_bytes)}; the largest tensor of all models in "
        f"float32: {size_text(of.merge_bytes)}; the longest text: {size_text(of.texts_bytes)}, and "
        "more where there is room"
    )
    if of.prefix_bytes:
        yield f"  states that routes share: up to {size_text(of.prefix_bytes)}"
    for device in plan.devices:
        room = f"the {size_text(device.memory_bytes)} of one {device.name}"
        if device.device_workers > 1.0:
            room += f" that {device.device_workers:g} workers share"
        fits = "fits" if device.fits else "does not fit"
        yield f"  {size_text(device.needed_bytes)} at least, in {room}: {fits}"
    yield (
        f"  the machine: {size_text(plan.host_bytes)} if the models' files are to stay in memory "
        "and all workers are on it"
    )


def _disk(plan: Plan) -> Iterator[str]:
    disk = plan.disk
    yield "disk"
    said = f"  models: {size_text(disk.files_bytes)}"
    if disk.statistics_bytes:
        said += f"; statistics: {size_text(disk.statistics_bytes)}"
    yield (
        f"{said}; the record: about {size_text(disk.record_bytes)}; results that depend on the "
        f"models alone: up to {size_text(disk.cache_bytes)}; an export: "
        f"{size_text(disk.export_bytes)}"
    )


def _work(plan: Plan) -> Iterator[str]:
    yield "work of a candidate"
    for device in plan.devices:
        moved = device.moved
        said = f"  a merge on {device.name}: "
        if not moved.written and not moved.streamed:
            yield f"{said}nothing is copied, a route takes its layers where they are"
            continue
        where = []
        if moved.resident:
            where.append(f"{size_text(moved.resident)} read in its memory")
        if moved.streamed:
            where.append(f"{size_text(moved.streamed)} read from the models' files")
        took = "" if device.merge_s is None else f", {_spread(device.merge_s)}"
        yield f"{said}{' and '.join(where)}, {size_text(moved.written)} written{took}"
    for phase in plan.phases:
        name = _name(phase, plan)
        work, parts = phase.work, phase.parts
        said = f"  {name}: {parts * work.read_tokens:,} tokens read"
        if work.answers:
            said += f", about {parts * work.answer_tokens:,} tokens answered"
        merges = f" in {parts} parts, each after a merge" if parts > 1 else ""
        passes = count_text(phase.passes[0], "forward pass")
        passes = passes.replace("passs", "passes")
        yield f"{said}{merges}; on a GPU {passes} over texts and {phase.passes[1]:,} of one token"


def _hours(plan: Plan) -> Iterator[str]:
    yield "hours and cost"
    for device in plan.devices:
        if device.candidate_s is not None:
            yield (
                f"  {count_text(device.workers, 'worker')} on {device.count} {device.name}: a "
                f"candidate takes {_spread(device.candidate_s)}"
            )
    for phase in plan.phases:
        if phase.hours is not None:
            name = _name(phase, plan)
            least, most = phase.models
            models = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            yield f"  {name}: {models} models, {_time(phase.hours)}"
    if plan.hours is None:
        yield "  not known: see below"
        return
    yield f"  the whole search: {_time(plan.hours)}"
    if plan.cut_hours is not None and plan.cut_hours > 1.05 * plan.hours[1]:
        yield f"  if every answer ran to its limit: up to {_clock(plan.cut_hours)}"
    if plan.cost is not None and plan.cost[1] > 0:
        yield f"  cost: ${_money(plan.cost[0])} to ${_money(plan.cost[1])}"


def _name(phase: PhasePlan, plan: Plan) -> str:
    several = len({each.stage for each in plan.phases if each.stage}) > 1
    return f"{phase.phase} of {phase.stage}" if several and phase.stage else phase.phase


def _spread(span: Span) -> str:
    low, high = seconds_text(span[0]), seconds_text(span[1])
    return low if low == high else f"{low} to {high}"


def _time(hours: Span) -> str:
    low, high = _clock(hours[0]), _clock(hours[1])
    return f"about {low}" if low == high else f"{low} to {high}"


def _clock(hours: float) -> str:
    """A time with two digits."""
    seconds = 3600 * hours
    for size, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return (
                f"{seconds / size:.2g} {name}"
                if seconds < 100 * size
                else f"{seconds / size:,.0f} {name}"
            )
    return f"{seconds:.2g} s"


def _money(dollars: float) -> str:
    return f"{dollars:,.0f}" if dollars >= 100 else f"{dollars:.2g}"

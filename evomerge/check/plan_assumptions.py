"""What a plan rests on: each assumption with its source, for the record and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evomerge.check.footprint import CONTEXT_BYTES, PROCESS_BYTES, RESIDENT_SHARE, Footprint
from evomerge.check.rehearsal import Rehearsal
from evomerge.check.roofline import DISK_BYTES_S, LAYER_S, LINK, MEMORY, OPERATIONS, TENSOR_S
from evomerge.check.sizes import seconds_text, size_text
from evomerge.check.workload import HIGH
from evomerge.job import DeviceGroup
from evomerge.report import count_text

Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Assumption:
    """Something that the plan takes for true. source: a data sheet, a measurement, or `assumed`."""

    what: str
    source: str


def assumptions_of(
    groups: tuple[DeviceGroup, ...],
    footprint: Footprint,
    rehearsal: Rehearsal | None,
    answers: Mapping[str, int],
    *,
    own: Span,
    timed: bool,
) -> tuple[Assumption, ...]:
    """Every assumption of a plan, those of the devices first."""
    found = [*_devices(groups, footprint)]
    if any(group.device is not None for group in groups):
        found += _gpus(own, timed=timed)
    if rehearsal is not None:
        found += _here(rehearsal)
    if answers:
        said = ", ".join(f"{task} {tokens}" for task, tokens in answers.items())
        found.append(
            Assumption(
                what=f"tokens of an answer: {said}; up to {HIGH:g} times as many at the high end",
                source="assumed: the median of right answers of the task",
            )
        )
    found += [
        Assumption(
            what=f"memory beside models: {size_text(CONTEXT_BYTES)} of a GPU and "
            f"{size_text(PROCESS_BYTES)} of the machine for each worker",
            source="assumed",
        ),
        Assumption(
            what="a search starts in 10 s to 1 min, on GPUs in 20 s to 2 min, and devices are paid "
            "for from then to the end",
            source="assumed; 22 s of compiling were measured on one H200",
        ),
    ]
    return tuple(found)


def _devices(groups: tuple[DeviceGroup, ...], footprint: Footprint) -> Iterator[Assumption]:
    for group in groups:
        device = group.device
        if device is not None:
            yield Assumption(
                what=f"{group.name}: {size_text(device.memory_bytes)}, "
                f"{device.memory_bytes_s / 1e12:g} TB/s, "
                f"{device.operations_s[footprint.dtype] / 1e12:g} tera operations/s in "
                f"{footprint.dtype}, {device.link_bytes_s / 1e9:g} GB/s from the machine",
                source=device.source,
            )
        yield Assumption(
            what=f"{group.name}: ${group.price:g} an hour",
            source=group.price_source,
        )


def _gpus(own: Span, *, timed: bool) -> Iterator[Assumption]:
    shares = {
        "operations": OPERATIONS,
        "memory speed": MEMORY,
        "link": LINK,
    }
    said = ", ".join(
        f"{worst:.0%} to {best:.0%} of its {of}" for of, (best, worst) in shares.items()
    )
    yield Assumption(what=f"a GPU reaches {said}", source="assumed; not measured with this engine")
    fast, slow = LAYER_S
    yield Assumption(
        what=f"{1000 * fast:g} to {1000 * slow:g} ms to start a layer of a pass",
        source="assumed; not measured",
    )
    fast, slow = TENSOR_S
    yield Assumption(
        what=f"{1000 * fast:g} to {1000 * slow:g} ms to start the merge of a tensor",
        source="measured on one H200, 0.3 to 0.5 ms",
    )
    yield Assumption(
        what=f"{RESIDENT_SHARE:.0%} of a GPU's free memory keeps tensors of the models; the others "
        f"come from the machine's memory, at worst from a disk at "
        f"{size_text(DISK_BYTES_S)}/s",
        source="the merge engine; the disk is assumed",
    )
    yield Assumption(
        what=f"all work beside the passes takes {seconds_text(own[0])} to "
        f"{seconds_text(own[1])} an item",
        source="the tasks' own code as measured on this machine, 1 to 4 times"
        if timed
        else "assumed; nothing was timed",
    )


def _here(rehearsal: Rehearsal) -> Iterator[Assumption]:
    layers = " and ".join(map(str, rehearsal.layers))
    timed = f"random weights in {layers} of {count_text(rehearsal.of, 'layer')}"
    yield Assumption(
        what=f"CPU: this machine; a merge takes {seconds_text(rehearsal.merge_s[0])} to "
        f"{seconds_text(rehearsal.merge_s[1])}, the answers are {rehearsal.answering:.0%} of a "
        "candidate's time",
        source=f"measured on this machine: the job's texts, {timed}",
    )
    busy = max(
        (most / least for least, most in [*rehearsal.item_s.values(), rehearsal.merge_s] if least),
        default=1.0,
    )
    if busy > 1.5:
        yield Assumption(
            what="the low end is a quiet machine, the high end is as busy as it was in the "
            f"measurement (up to {busy:.1f} times as slow)",
            source="measured on this machine",
        )

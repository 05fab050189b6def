"""Whether a worker fits on a device of the table, how many do, and what to change if none does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from evomerge.check.footprint import Footprint
from evomerge.check.memory import BYTES
from evomerge.check.sizes import size_text
from evomerge.job import DEVICES, ComputeSpec, DeviceGroup
from evomerge.report import count_text

CACHED_SHARE = 0.7
"""Share of a machine's memory that keeps files, as the merge engine assumes."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The workers of one kind of device.

    each: that one device holds; below 1 where a worker takes several devices. workers: in all.
    memory_bytes: that a worker may use. needed_bytes: that it needs at least.
    """

    group: DeviceGroup
    each: float
    workers: int
    memory_bytes: int
    needed_bytes: int

    @property
    def fits(self) -> bool:
        """Whether a worker has the memory that it needs."""
        return self.needed_bytes <= self.memory_bytes


def place(
    groups: tuple[DeviceGroup, ...], footprint: Footprint, compute: ComputeSpec, *, here_bytes: int
) -> tuple[Placed, ...]:
    """The workers on each kind of device. here_bytes: memory of this machine."""
    share = 1.0 if compute.gpus_per_worker == "auto" else compute.gpus_per_worker
    left = compute.workers if isinstance(compute.workers, int) else None
    placed = []
    for group in groups:
        if group.device is None:
            workers = group.count if left is None else max(1, min(left, 64 * group.count))
            each = workers / group.count
            memory = int(here_bytes / max(1.0, each))
            needed = footprint.live_bytes + footprint.texts_bytes + footprint.prefix_bytes
            needed += footprint.host_bytes
        else:
            each = float(int(1 / share)) if share <= 1.0 else 1 / share
            room = int(group.count * each)
            workers = room if left is None else min(left, room)
            memory = int(group.device.memory_bytes / max(1.0, each))
            needed = footprint.device_bytes
        if left is not None:
            left -= workers
        placed.append(
            Placed(
                group=group,
                each=each,
                workers=workers,
                memory_bytes=memory,
                needed_bytes=needed,
            )
        )
    return tuple(placed)


def findings_of(
    placed: tuple[Placed, ...], footprint: Footprint, compute: ComputeSpec, *, models: int
) -> Iterator[str]:
    """What does not fit or is left unused, a sentence each with what to change."""
    for on in placed:
        name = on.group.name
        if not on.fits:
            yield (
                f"{name}: a worker needs at least {size_text(on.needed_bytes)} and has "
                f"{size_text(on.memory_bytes)}; {' or '.join(_mends(on, footprint, models))}"
            )
        if on.group.device is not None and on.each < 1.0:
            yield (
                f"compute.gpus_per_worker: {1 / on.each:g}: a worker runs its model on one {name}, "
                "so the others stay empty; set it to 1"
            )
        if on.workers == 0 and on.each >= 1.0:
            yield (
                f"{name}: no worker is left for it; raise compute.workers, or leave it out of the "
                "devices"
            )
    wanted, room = compute.workers, sum(on.workers for on in placed)
    if isinstance(wanted, int) and wanted > room:
        yield f"compute.workers: {wanted} is more than the {room} that have a place; lower it"


def _mends(on: Placed, footprint: Footprint, models: int) -> Iterator[str]:
    found = False
    for mend, smaller in _smaller(footprint, models):
        saved = footprint.device_bytes - smaller.device_bytes
        if on.needed_bytes - saved <= on.memory_bytes:
            found = True
            yield f"{mend} (then {size_text(on.needed_bytes - saved)})"
    whole = on.group.device.memory_bytes if on.group.device else 0
    if on.each > 1.0 and on.needed_bytes <= whole:
        found = True
        yield "set compute.gpus_per_worker to 1"
    larger = [d for d in DEVICES.values() if footprint.device_bytes <= d.memory_bytes]
    if larger:
        best = min(larger, key=lambda device: (device.memory_bytes, device.price))
        yield f"take a device with more memory, such as {best.name}"
    elif not found:
        yield (
            "take smaller models: no device of the table holds this one, and a worker's model is "
            "on one device"
        )


def _smaller(footprint: Footprint, models: int) -> Iterator[tuple[str, Footprint]]:
    """Changes of the job that need less memory."""
    if BYTES[footprint.dtype] == 4:
        half = replace(
            footprint,
            live_bytes=footprint.live_bytes // 2,
            texts_bytes=footprint.texts_bytes // 2,
            dtype="bfloat16",
        )
        yield "set compute.dtype to bfloat16", half
    if footprint.routes:
        yield "set compute.prefix_gb to 0", replace(footprint, prefix_bytes=0)
        for kept in range(models - 1, 1, -1):
            fewer = footprint.live_bytes * kept // models
            yield (
                f"name fewer models ({count_text(kept, 'model')} with the base)",
                replace(footprint, live_bytes=fewer),
            )

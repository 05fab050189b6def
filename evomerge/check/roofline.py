"""About how long a device of the table takes, from its data sheet.

A pass is bound by the operations or by the memory, whichever takes longer (Williams et al. 2009),
and each layer of each pass costs the time to start its kernels. How near a device comes to its data
sheet is assumed, so every number is a range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from evomerge.check.footprint import Footprint
from evomerge.check.workload import HIGH, Work
from evomerge.job import PlannedDevice

Span = tuple[float, float]
"""The least and the most, here seconds."""

OPERATIONS = (0.6, 0.15)
"""Share of a data sheet's operations that passes over texts reach, at best and at worst."""

MEMORY = (0.8, 0.3)
"""Share of a data sheet's memory speed that is reached, at best and at worst."""

LINK = (0.8, 0.3)
"""Share of the link's speed that is reached, at best and at worst."""

LAYER_S = (0.3e-3, 1.2e-3)
"""Seconds to start the kernels of one layer of a pass, at best and at worst."""

TENSOR_S = (0.3e-3, 0.7e-3)
"""Seconds to start the merge of one tensor: 0.3 to 0.5 ms were measured on one H200."""

MERGE_PASSES = (1.5, 8.0)
"""How often a merge moves the bytes of its tensors, from a weighted sum to a sort."""

DISK_BYTES_S = 2e9
"""A disk reads so fast, where the files do not stay in the machine's memory."""

_PASS_TOKENS = 1 << 15
"""Tokens of a pass, and of the answers that grow side by side; a GPU is probed for 1,024 to 65,536.
"""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Bytes that one merge moves.

    resident: of the sources, read in the device's memory. streamed: of the sources, from the
    machine's memory to the device. written: of the merge.
    """

    resident: int
    streamed: int
    written: int


def moved_on(footprint: Footprint, memory_bytes: float) -> Moved:
    """What a merge moves on a GPU with so much memory for one worker."""
    resident = footprint.resident_bytes(memory_bytes)
    return Moved(
        resident=resident,
        streamed=footprint.sources_bytes - resident,
        written=footprint.written_bytes,
    )


def merge_s(footprint: Footprint, device: PlannedDevice, moved: Moved) -> Span:
    """Seconds of a merge; at worst what is streamed comes from the disk each time."""
    if not footprint.written_bytes:
        return 0.0, 0.0
    moved_bytes = footprint.sources_bytes + footprint.written_bytes
    least, most = (
        footprint.tensors * TENSOR_S[end]
        + MERGE_PASSES[end] * moved_bytes / (MEMORY[end] * device.memory_bytes_s)
        + moved.streamed / (LINK[end] * device.link_bytes_s)
        for end in (0, 1)
    )
    return least, most + moved.streamed / DISK_BYTES_S


def part_s(work: Work, footprint: Footprint, device: PlannedDevice) -> Span:
    """Seconds to answer the items of a part, without the work of the tasks' own code."""
    least, most = (_part_s(work, footprint, device, end) for end in (0, 1))
    return least, most


def passes_of(work: Work) -> tuple[int, int]:
    """Forward passes of a part: over texts, and for one token of all answers."""
    rows = max(1, _PASS_TOKENS // max(1, work.longest_tokens))
    rounds = math.ceil(work.answers / rows)
    return math.ceil(work.read_tokens / _PASS_TOKENS), rounds * work.longest_answer


def _part_s(work: Work, footprint: Footprint, device: PlannedDevice, end: int) -> float:
    passes, steps = passes_of(work)
    longer = HIGH if end else 1.0
    longer = min(longer, max(1.0, work.cut))
    operations_s = OPERATIONS[end] * device.operations_s[footprint.dtype]
    memory_bytes_s = MEMORY[end] * device.memory_bytes_s
    attention = 2 * footprint.layers * footprint.hidden * work.context_tokens
    each = 2 * footprint.active_parameters + attention
    head = 2 * footprint.head_parameters
    reading = (work.read_tokens * each + (work.scored_tokens + work.answers) * head) / operations_s
    weights = footprint.written_bytes or footprint.live_bytes
    answers = longer * work.answer_tokens
    answering = max(
        answers * (each + head) / operations_s,
        (longer * steps * weights + answers * work.context_tokens * footprint.state_bytes)
        / memory_bytes_s,
    )
    starts = (passes + longer * steps) * footprint.layers * LAYER_S[end]
    return reading + answering + starts

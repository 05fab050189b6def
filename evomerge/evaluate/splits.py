"""Assigns items to search, validation and test, and draws the items of each generation.

The split of an item depends on its content alone. So the same question is in the same split in
every task and in every order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.errors import JobError
from evomerge.evaluate.candidate import ItemIds, Split
from evomerge.job import SplitSpec


def digest_item(document: Mapping[str, object]) -> str:
    """sha256 of an item's content as canonical JSON, in hexadecimal.

    Keys are sorted; values that JSON cannot hold are written as text.
    """
    text = json.dumps(
        document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_as_json
    )
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def _as_json(value: object) -> object:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    return str(value)


def place_item(digest: str, shares: SplitSpec) -> Split:
    """The split of an item: its digest, as a number in [0, 1), is compared with the shares."""
    position = int(digest[:16], 16) / 2**64
    if position < shares.search:
        return "search"
    if position < shares.search + shares.validation:
        return "validation"
    return "test"


def share_evenly(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """How many of `total` items each task gives.

    sizes: task -> its items; a task with fewer items than its part gives all of them. The remainder
    goes to the first tasks, one item each.
    """
    part, remainder = divmod(total, max(1, len(sizes)))
    return {
        task: min(part + (ordinal < remainder), size)
        for ordinal, (task, size) in enumerate(sizes.items())
    }


def draw(pools: Mapping[str, Sequence[int]], total: int, *, seed: int, generation: int) -> ItemIds:
    """Items of one generation: `total` over all tasks, evenly, without replacement.

    pools: task -> items to draw from, in the order of the job. The remainder goes to the first
    tasks, one item each; a task with fewer items gives all of them. The same seed, generation and
    pools give the same items on every machine and with every version of numpy.
    Raises JobError if `total` is smaller than the number of tasks.
    """
    if total < len(pools):
        raise JobError(
            f"evaluation: {total} items cannot cover {len(pools)} tasks; draw at least {len(pools)}"
        )
    counts = share_evenly(total, {task: len(pool) for task, pool in pools.items()})
    drawn: dict[str, tuple[int, ...]] = {}
    for ordinal, (task, pool) in enumerate(pools.items()):
        # Raw output is the only stream numpy promises never to change; sorting it is a shuffle.
        bits = np.random.PCG64(np.random.SeedSequence((seed, generation, ordinal)))
        order = np.argsort(bits.random_raw(len(pool)), kind="stable")[: counts[task]]
        drawn[task] = tuple(sorted(pool[index] for index in order.tolist()))
    return drawn

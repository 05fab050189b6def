"""What routes with the same beginning share: the order to run them in, and states that are kept.

After the same hops over the same tokens every route has the same hidden states. They are kept where
later routes go on from them, and each of those then begins at the deepest it finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.route.route import Hop

Prefix = tuple[Hop, ...]
"""The first hops of a route."""

_Branches = dict[Hop, tuple[int, "_Branches"]]
"""Next hop -> its number among its siblings, and what follows it."""


def order_by_prefix(routes: Sequence[Sequence[Hop]]) -> list[int]:
    """The places of the routes in an order in which those that begin alike follow each other.

    It is depth first over the tree of their beginnings, branches by first appearance: a shared
    beginning is passed through once however little is kept. The same routes keep their order.
    """
    root: _Branches = {}
    paths = []
    for route in routes:
        branches, path = root, []
        for hop in route:
            number, following = branches.setdefault(hop, (len(branches), {}))
            path.append(number)
            branches = following
        paths.append(path)
    return sorted(range(len(routes)), key=lambda place: paths[place])


class PrefixStates:
    """Hidden states after the beginnings of routes, batch by batch, within a number of bytes.

    What saves the most passes through layers for its bytes is kept, by the routes to come. States
    of one batch take as many bytes at any depth, so that is what saves the most passes.

        states.expect(routes)        # of one set of items
        for route in routes:
            states.follow(route)
            for batch in batches:
                depth, hidden = states.deepest(batch)
                ...                  # run hop `depth` and those after it on `hidden`
                states.keep(wanted, batch, hidden)  # before hop `wanted` of `states.wanted`
    """

    def __init__(self, *, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self.wanted: tuple[int, ...] = ()
        """Depths of the present route, 1 or more, whose states routes to come begin at."""
        self._route: Prefix = ()
        self._expected: list[Prefix] = []
        self._kept: dict[Prefix, dict[bytes, torch.Tensor]] = {}
        self._worth: dict[Prefix, int] = {}  # passes a batch that the states save
        self._here: dict[int, dict[bytes, torch.Tensor]] = {}  # those of the present route

    def expect(self, routes: Sequence[Sequence[Hop]]) -> None:
        """Say which routes come after the present one, on the same items.

        A route that was not expected before means other items: what is kept is forgotten.
        """
        expected = [tuple(route) for route in routes]
        if Counter(expected) - Counter(self._expected):
            self._kept.clear()
        self._expected = expected
        self._plan()

    def follow(self, route: Sequence[Hop]) -> None:
        """Make a route the present one; it is expected once less."""
        self._route = tuple(route)
        if self._route in self._expected:
            self._expected.remove(self._route)
        self._plan()

    def deepest(self, batch: bytes) -> tuple[int, torch.Tensor | None]:
        """How many hops of the present route are made for a batch, and its states after them."""
        for depth, states in self._here.items():
            if batch in states:
                return depth, states[batch]
        return 0, None

    def deepest_of_all(self, batches: Sequence[bytes]) -> tuple[int, Mapping[bytes, torch.Tensor]]:
        """The same for batches that must begin at one hop, as they share keys and values."""
        for depth, states in self._here.items():
            if all(batch in states for batch in batches):
                return depth, states
        return 0, {}

    def keep(self, depth: int, batch: bytes, states: torch.Tensor) -> None:
        """Keep a copy of a batch's states after `depth` hops of the present route, if it pays.

        Only states that save less give way.
        """
        prefix = self._route[:depth]
        if batch in self._kept.get(prefix, ()):
            return
        if self._make_room(states.nbytes, self._worth[prefix]):
            self._kept.setdefault(prefix, {})[batch] = states.clone()
            self.size_bytes += states.nbytes

    def _make_room(self, needed_bytes: int, worth: int) -> bool:
        less = sorted(
            (prefix for prefix in self._kept if self._worth[prefix] < worth),
            key=lambda prefix: self._worth[prefix],
        )
        free = self.limit_bytes - self.size_bytes
        if needed_bytes > free + sum(_size_bytes(self._kept[prefix]) for prefix in less):
            return False
        for prefix in less:
            while self._kept[prefix] and needed_bytes > self.limit_bytes - self.size_bytes:
                _, dropped = self._kept[prefix].popitem()
                self.size_bytes -= dropped.nbytes
        return True

    def _plan(self) -> None:
        """Weigh what is kept and what the present route passes through, and drop what is useless.

        Greedy: the states that save most come first, and the rest count for what they save beyond.
        """
        passed = {
            self._route[:depth]
            for route in self._expected
            if (depth := _resumable(self._route, route)) > 0
        }
        prefixes = sorted({*self._kept, *passed} if self.limit_bytes else (), key=len, reverse=True)
        worth = dict(zip(prefixes, _savings(prefixes, self._expected), strict=True))
        self.wanted = tuple(sorted(len(each) for each in passed if worth.get(each)))
        here = [
            prefix for prefix in prefixes if prefix in self._kept and _leads(prefix, self._route)
        ]
        self._worth = {**worth, **{prefix: worth[prefix] + len(prefix) for prefix in here}}
        self._kept = {prefix: kept for prefix, kept in self._kept.items() if self._worth[prefix]}
        self._here = {len(prefix): self._kept[prefix] for prefix in here}  # the deepest first
        self.size_bytes = sum(_size_bytes(kept) for kept in self._kept.values())


def _resumable(first: Prefix, second: Prefix) -> int:
    """How many hops two routes begin with alike; each has one at least to itself."""
    depth = 0
    for one, other in zip(first[:-1], second[:-1], strict=False):
        if one != other:
            break
        depth += 1
    return depth


def _leads(prefix: Prefix, route: Prefix) -> bool:
    """Whether a route goes on from a prefix, by one hop at least."""
    return len(prefix) < len(route) and route[: len(prefix)] == prefix


def _savings(prefixes: Sequence[Prefix], routes: Sequence[Prefix]) -> list[int]:
    """Passes through layers that states after each prefix save, all better ones being kept too."""
    if not prefixes or not routes:
        return [0] * len(prefixes)
    reach: NDArray[np.int64] = np.array(
        [[len(prefix) * _leads(prefix, route) for route in routes] for prefix in prefixes]
    )  # (prefixes, routes)
    saved = np.zeros(len(routes), dtype=np.int64)
    savings = [0] * len(prefixes)
    for _ in prefixes:
        gains = np.maximum(reach - saved, 0).sum(axis=1)
        best = int(gains.argmax())
        if not gains[best]:
            break
        savings[best] = int(gains[best])
        saved = np.maximum(saved, reach[best])
    return savings


def _size_bytes(kept: dict[bytes, torch.Tensor]) -> int:
    return sum(states.nbytes for states in kept.values())

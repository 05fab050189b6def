"""Sharing work between routes that begin alike: the order to run them in, and kept states.

After the same hops over the same tokens, all routes have the same hidden states. These are kept if
later routes can continue from them. A later route then begins at its deepest kept states.
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
"""Next hop -> its number among its siblings, and the branches after it."""


def order_by_prefix(routes: Sequence[Sequence[Hop]]) -> list[int]:
    """The indices of the routes, ordered so that routes that begin alike follow each other.

    The order is depth first over the tree of their beginnings, with branches by first appearance.
    So a shared beginning runs only once, even if little is kept. Equal routes keep their order.
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
    """Hidden states after the beginnings of routes, batch by batch, within a limit of bytes.

    States are kept if they save the coming routes the most passes through layers. The bytes need no
    weighing: the states of one batch take the same number of bytes at any depth.

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
        """Depths of the present route, 1 or more, at which coming routes can begin."""
        self._route: Prefix = ()
        self._expected: list[Prefix] = []
        self._kept: dict[Prefix, dict[bytes, torch.Tensor]] = {}
        self._worth: dict[Prefix, int] = {}  # passes that the states save, for one batch
        self._on_route: dict[
            int, dict[bytes, torch.Tensor]
        ] = {}  # kept states of the present route

    def expect(self, routes: Sequence[Sequence[Hop]]) -> None:
        """Set the routes that come after the present one, on the same items.

        A route that was not expected before means other items, so all kept states are dropped.
        """
        expected = [tuple(route) for route in routes]
        if Counter(expected) - Counter(self._expected):
            self._kept.clear()
        self._expected = expected
        self._plan()

    def follow(self, route: Sequence[Hop]) -> None:
        """Make a route the present one, and expect it once less."""
        self._route = tuple(route)
        if self._route in self._expected:
            self._expected.remove(self._route)
        self._plan()

    def deepest(self, batch: bytes) -> tuple[int, torch.Tensor | None]:
        """How many hops of the present route are done for a batch, and its states after them."""
        for depth, states in self._on_route.items():
            if batch in states:
                return depth, states[batch]
        return 0, None

    def deepest_of_all(self, batches: Sequence[bytes]) -> tuple[int, Mapping[bytes, torch.Tensor]]:
        """As `deepest`, for batches that must begin at one hop to share keys and values."""
        for depth, states in self._on_route.items():
            if all(batch in states for batch in batches):
                return depth, states
        return 0, {}

    def keep(self, depth: int, batch: bytes, states: torch.Tensor) -> None:
        """Keep a copy of a batch's states after `depth` hops of the route, if there is room.

        Room is made by dropping only states that save less.
        """
        prefix = self._route[:depth]
        if batch in self._kept.get(prefix, ()):
            return
        if self._make_room(states.nbytes, self._worth[prefix]):
            self._kept.setdefault(prefix, {})[batch] = states.clone()
            self.size_bytes += states.nbytes

    def _make_room(self, needed_bytes: int, worth: int) -> bool:
        cheaper = sorted(
            (prefix for prefix in self._kept if self._worth[prefix] < worth),
            key=lambda prefix: self._worth[prefix],
        )
        free = self.limit_bytes - self.size_bytes
        if needed_bytes > free + sum(_size_bytes(self._kept[prefix]) for prefix in cheaper):
            return False
        for prefix in cheaper:
            while self._kept[prefix] and needed_bytes > self.limit_bytes - self.size_bytes:
                _, dropped = self._kept[prefix].popitem()
                self.size_bytes -= dropped.nbytes
        return True

    def _plan(self) -> None:
        """Weigh the kept states and those of the present route, and drop useless ones.

        Greedy: the states that save most come first; the others count for what they save in
        addition.
        """
        passed = {
            self._route[:depth]
            for route in self._expected
            if (depth := _resumable(self._route, route)) > 0
        }
        prefixes = sorted({*self._kept, *passed} if self.limit_bytes else (), key=len, reverse=True)
        worth = dict(zip(prefixes, _savings(prefixes, self._expected), strict=True))
        self.wanted = tuple(sorted(len(prefix) for prefix in passed if worth.get(prefix)))
        on_route = [
            prefix for prefix in prefixes if prefix in self._kept and _leads(prefix, self._route)
        ]
        self._worth = {**worth, **{prefix: worth[prefix] + len(prefix) for prefix in on_route}}
        self._kept = {prefix: kept for prefix, kept in self._kept.items() if self._worth[prefix]}
        self._on_route = {
            len(prefix): self._kept[prefix] for prefix in on_route
        }  # the deepest first
        self.size_bytes = sum(_size_bytes(kept) for kept in self._kept.values())


def _resumable(first: Prefix, second: Prefix) -> int:
    """How many first hops two routes share; at least one hop of each is not counted."""
    depth = 0
    for first_hop, second_hop in zip(first[:-1], second[:-1], strict=False):
        if first_hop != second_hop:
            break
        depth += 1
    return depth


def _leads(prefix: Prefix, route: Prefix) -> bool:
    """Whether a route continues a prefix by at least one hop."""
    return len(prefix) < len(route) and route[: len(prefix)] == prefix


def _savings(prefixes: Sequence[Prefix], routes: Sequence[Prefix]) -> list[int]:
    """Passes through layers that states after each prefix save, if all better ones are kept too."""
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

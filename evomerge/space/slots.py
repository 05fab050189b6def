"""The places of a route: which layer each one has, and which of them a genome takes.

The layers of all models are laid end to end, and that several times over (Akiba et al. 2025,
arXiv 2403.13187, section "merging in the data flow space"). It knows no scales and no recipes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Layer = tuple[str, int]
"""A model's reference and the number of a layer in it."""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The places of a route, numbered from 0 over all passes.

    layers: every layer of the models laid end to end, those of the leading model, of which there
        are two or more, first.
    passes: how often they come. least, most: how many layers a route has, the two included that are
        in every route: the leading model's first, with which it opens, and its last, with which it
        closes whatever comes before.
    """

    layers: tuple[Layer, ...]
    passes: int
    least: int
    most: int

    @cached_property
    def count(self) -> int:
        """Number of places."""
        return len(self.layers) * self.passes

    @cached_property
    def depth(self) -> int:
        """Number of layers of the leading model."""
        return sum(model == self.layers[0][0] for model, _ in self.layers)

    @property
    def closing(self) -> int:
        """The place of the layer with which every route closes."""
        return self.depth - 1

    @cached_property
    def switches(self) -> tuple[int, ...]:
        """The places that a route may take or leave, in order."""
        return tuple(slot for slot in range(1, self.count) if slot != self.closing)

    def layer_at(self, slot: int) -> Layer:
        """The layer that a place has."""
        return self.layers[slot % len(self.layers)]

    def pass_of(self, slot: int) -> int:
        """The number of the pass that a place belongs to, from 1."""
        return slot // len(self.layers) + 1

    def own(self, slot: int) -> bool:
        """Whether a place is on the leading model's own route."""
        return slot < self.depth

    def taken(self, values: NDArray[np.float64]) -> tuple[int, ...]:
        """The places of the route whose switches have `values`, (switches,), in the route's order.

        Those above 1/2 are in. Where they are too many, the highest stay; too few, the highest of
        the others come in. Of equals the earlier place goes first, which is that of the leading
        model's own route where there is one.
        """
        wanted = min(max(int((values > 0.5).sum()), self.least - 2), self.most - 2)
        ranked = np.argsort(-values, kind="stable")
        return (0, *sorted(self.switches[place] for place in ranked[:wanted]), self.closing)

    def earliest(self, layers: Sequence[Layer]) -> tuple[int, ...] | None:
        """The earliest places of a route's layers, in order.

        None where it opens or closes otherwise, or cannot come to a layer in as many passes.
        """
        ends = (self.layers[0], self.layers[self.closing])
        if len(layers) < 2 or (layers[0], layers[-1]) != ends:
            return None
        found = [0]
        for layer in layers[1:-1]:
            if layer not in self.layers:
                return None
            places = range(self.layers.index(layer), self.count, len(self.layers))
            later = (slot for slot in places if slot > found[-1] and slot != self.closing)
            slot = next(later, None)
            if slot is None:
                return None
            found.append(slot)
        return (*found, self.closing)

"""How a parameter varies over depth: one value, one for each layer, for groups, or by knots.

A profile says which layers each of its values is for, and how a recipe writes them. It knows
nothing of parameters, models or genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["all", "each", "groups", "knots"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Values over the layers of a model.

    size: layers in a group for `groups`, number of knots for `knots`, unused otherwise.
    """

    kind: Kind
    depth: int
    size: int = 1

    @property
    def count(self) -> int:
        """Number of values."""
        if self.kind == "groups":
            return -(-self.depth // self.size)
        return {"all": 1, "each": self.depth, "knots": self.size}[self.kind]

    @property
    def spans(self) -> tuple[tuple[float, float], ...]:
        """First and last layer of each value; a knot's position over depth, twice."""
        last = self.depth - 1
        if self.kind == "knots":
            positions = [k * last / (self.size - 1) for k in range(self.size)]
            return tuple((position, position) for position in positions)
        if self.kind == "groups":
            firsts = range(0, self.depth, self.size)
            return tuple((first, min(first + self.size - 1, last)) for first in firsts)
        return ((0, last),) if self.kind == "all" else tuple((i, i) for i in range(self.depth))

    @property
    def labels(self) -> tuple[str, ...]:
        """What to call each value in the name of a gene; "" where there is only one."""
        digits = max(2, len(str(self.depth - 1)))
        if self.kind == "all":
            return ("",)
        if self.kind == "knots":
            return tuple(f"knot{k}of{self.size}" for k in range(1, self.size + 1))
        return tuple(
            f"L{first:0{digits}.0f}" + (f"-L{last:0{digits}.0f}" if last > first else "")
            for first, last in self.spans
        )

    def basis(self) -> NDArray[np.float64]:
        """(depth, count): a layer's value is its row times the values."""
        rows = np.zeros((self.depth, self.count))
        for layer in range(self.depth):
            if self.kind == "knots":
                place = layer * (self.size - 1) / (self.depth - 1)
                below = min(int(place), self.size - 2)
                rows[layer, below] = 1.0 - (place - below)
                rows[layer, below + 1] = place - below
            else:
                rows[layer, {"all": 0, "each": layer, "groups": layer // self.size}[self.kind]] = (
                    1.0
                )
        return rows

    def setting(self, values: tuple[float, ...]) -> float | tuple[float, ...]:
        """The values as a recipe writes them: one number, or a gradient over depth.

        A gradient of one value for each layer is exact at every layer; one of knots is
        interpolated between them by whoever executes the recipe.
        """
        assert len(values) == self.count
        if self.kind == "all":
            return values[0]
        if self.kind == "groups":
            return tuple(values[layer // self.size] for layer in range(self.depth))
        return values

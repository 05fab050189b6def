"""What every search space offers: genes, decoding a genome to a recipe, and encoding it back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evomerge.recipe import Recipe

Component = Literal["all", "attention", "mlp", "rest", "outer"]
"""The tensors that a gene affects: all, a part of the layers, or those outside the layers."""

Scale = Literal["linear", "log"]


ZERO = 4e-16
"""Rounding error of a decoded value, as a share of its range; a value below it is 0."""


@dataclass(frozen=True, kw_only=True)
class Gene:
    """One coordinate of the unit box and its parameter.

    low, high, start: in the parameter's own units.
    source: reference of the model that the parameter belongs to; None when all models share it.
    layers: first and last layer that it affects; for a knot its position over depth, twice, which
        may be a fraction; None for tensors outside the layers.
    binary: whether it is a switch, with the values 0 and 1.
    """

    name: str
    low: float
    high: float
    scale: Scale
    start: float
    parameter: str
    source: str | None
    component: Component
    layers: tuple[float, float] | None
    binary: bool = False

    def value(self, position: float) -> float:
        """The parameter at a position in [0, 1]; one-to-one, exact at both ends.

        A binary gene is 1 above the middle, else 0.
        """
        if self.binary:
            return float(position > 0.5)
        if self.scale == "log":
            return float(self.low ** (1.0 - position) * self.high**position)
        value = (1.0 - position) * self.low + position * self.high
        # A zero inside the range must be exact: a normalised sign election counts 1e-17 in full.
        return 0.0 if abs(value) < ZERO * (self.high - self.low) else float(value)

    def position(self, value: float) -> float:
        """The position of `value`: 0 at low, 1 at high; outside [0, 1] for values out of range."""
        if self.scale == "log":
            if value <= 0.0:
                return -np.inf
            return float(np.log(value / self.low) / np.log(self.high / self.low))
        return float((value - self.low) / (self.high - self.low))


class SearchSpace(Protocol):
    """A box of genomes, each of which is a merge."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        """One gene for each coordinate of the unit box."""
        ...

    @property
    def start(self) -> NDArray[np.float64]:
        """The genome that a search starts from if it has no better one, (n,) in [0, 1]."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether only merges in the box count, because its limits exclude its first model."""
        ...

    def active(self, genome: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which genes have an effect in a genome, (n,); the others may have any value."""
        ...

    def decode(self, genome: NDArray[np.float64]) -> Recipe:
        """The recipe of a genome, (n,) float64 in [0, 1].

        A different value of any active gene gives a different recipe; switches are an exception.
        """
        ...

    def encode(self, recipe: Recipe) -> NDArray[np.float64] | None:
        """A genome, (n,) in [0, 1], of the same merge; None when the space cannot express it."""
        ...


def switches_of(space: SearchSpace) -> NDArray[np.bool_]:
    """Which genes of a space are switches, (n,)."""
    return np.array([gene.binary for gene in space.genes], dtype=np.bool_)


# Short names of models, for genes, labels and figures.
#
# A name is the shortest end of a reference that still distinguishes the models.


def short_names(references: Sequence[str], *, taken: Collection[str] = ()) -> dict[str, str]:
    """reference -> its last path component, or as many as it needs to be unique.

    A revision (`@...`) is left out unless two references differ in it alone. taken: names that no
    model may get. A reference is numbered if all its endings are taken.
    """
    parts = {reference: _parts(reference, references) for reference in references}
    names: dict[str, str] = {}
    for reference in references:
        others = [parts[other] for other in references if other != reference]
        names[reference] = _shortest(parts[reference], others, {*taken, *names.values()})
    return names


def _shortest(parts: list[str], others: list[list[str]], taken: set[str]) -> str:
    for length in range(1, len(parts) + 1):
        ending = parts[-length:]
        rivals = [other for other in others if other[-length:] == ending]
        # A whole path is unique even if longer paths end in it.
        unique = not rivals or (length == len(parts) and parts not in rivals)
        if unique and "/".join(ending) not in taken:
            return "/".join(ending)
    number = 2
    while f"{parts[-1]} ({number})" in taken:
        number += 1
    return f"{parts[-1]} ({number})"


def _parts(reference: str, references: Sequence[str]) -> list[str]:
    path = reference.partition("@")[0]
    if sum(other.partition("@")[0] == path for other in references) > 1:
        path = reference
    return [part for part in path.replace("\\", "/").split("/") if part] or [reference]

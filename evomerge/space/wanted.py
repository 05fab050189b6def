"""What a recipe wants of each tensor, parameter by parameter, as plain numbers.

It reads recipes and knows nothing of genes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.recipe import Recipe
from evomerge.space.components import Components
from evomerge.space.methods import ParameterRule

TOLERANCE = 1e-9
"""How far a value may be from the one wanted; values are of order one."""

Values = NDArray[np.float64]
"""(tensors,) float64 in the structure's order; NaN where any value merges the same."""


@dataclass(frozen=True)
class Inexpressible:
    """Why a space cannot express a recipe, in words."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Values of the parameters of a space's method.

    numbers: (parameter, model, or None for one of the whole recipe) -> a value for each tensor.
    switches: parameter that is not a number -> its value; left out where it does not matter.
    """

    numbers: Mapping[tuple[str, str | None], Values]
    switches: Mapping[str, bool | str]


def numbers_of(
    components: Components, recipe: Recipe, name: str, rule: ParameterRule, model: str | None
) -> Values | None:
    """A parameter of one model (None: of the recipe) for each tensor; None if it is no number.

    A model that the recipe does not list has weight 0.
    """
    if name == "weight" and all(entry.model != model for entry in recipe.models):
        return np.zeros(len(components.depths))
    values = []
    for tensor_name, depth in components.depths.items():
        value = recipe.setting_of(name, model=model, tensor_name=tensor_name, depth=depth)
        value = rule.default if value is None else value
        try:
            values.append(float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
    return np.array(values, dtype=np.float64)


def switch_of(recipe: Recipe, name: str, rule: ParameterRule) -> bool | str | None:
    """A parameter that is not a number; None where it differs between tensors."""
    value = recipe.parameters.get(name, rule.default)
    return value if isinstance(value, (bool, str)) else None


def same_choice(one: object, other: object) -> bool:
    """Whether two values of a switch mean the same: `rescale: true` is `rescale: l1`."""
    return one == other or {one, other} in ({True, "l1"}, {False, "none"})

"""Merge methods for a parameter space: the models they take and the parameters to search.

Parameters, defaults and ranges come from the registry in merge/; this module adds how a search uses
a method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.merge import METHODS, Method, ParameterSpec, Sums
from evomerge.recipe import Recipe
from evomerge.space.parameters.components import Components

Family = Literal["average", "task_vector", "two_models"]


@dataclass(frozen=True, kw_only=True)
class ParameterRule:
    """One parameter of a method.

    scope: given per model, or once for the recipe.
    default: the value when a recipe gives none; None when a recipe must give one.
    low, high: the range of its values; low_is_open excludes `low` itself.
    search: the range to search when a space gives none; None if it cannot be searched.
    choices: the values of a parameter that is not a number; it is never searched.
    """

    scope: Literal["model", "recipe"]
    default: float | bool | str | None
    low: float = -math.inf
    high: float = math.inf
    low_is_open: bool = False
    search: tuple[float, float] | None = None
    choices: tuple[bool | str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MethodRule:
    """How a space uses a merge method.

    family: `average` weighs whole models, `task_vector` adds differences from the base,
        `two_models` goes from one model to another.
    base: `named`: a recipe must name the base; `subtracted`: it may name the base to work on
        differences from it; `weighed`: it may weigh the base like any other model.
    least, most: how many models a recipe lists besides its base_model.
    sums: see Method.
    random: whether its recipe needs a mask seed. calibrated: whether it needs statistics.
    """

    family: Family
    base: Literal["named", "subtracted", "weighed"]
    least: int
    most: int | None
    parameters: Mapping[str, ParameterRule]
    sums: Sums
    random: bool
    calibrated: bool

    @property
    def searchable(self) -> bool:
        """Whether there is anything to search."""
        return any(rule.search is not None for rule in self.parameters.values())


@cache
def rule_of(name: str) -> MethodRule:
    """The rule of a method of the registry."""
    method = METHODS[name]
    family = _family(method)
    based = int(method.needs_base and family == "task_vector")
    return MethodRule(
        family=family,
        base="named" if method.needs_base else "weighed" if method.weighs_base else "subtracted",
        least=max(1, method.min_models - based),
        most=method.max_models if method.experts is None else method.experts,
        parameters={
            parameter: _parameter_rule(parameter, spec, family)
            for parameter, spec in method.parameters.items()
        },
        sums=method.sums,
        random=method.random,
        calibrated=method.statistics is not None,
    )


def _family(method: Method) -> Family:
    if not method.needs_base:
        return "average"
    return "two_models" if method.max_models == 2 else "task_vector"


def _parameter_rule(name: str, spec: ParameterSpec, family: Family) -> ParameterRule:
    choices: tuple[bool | str, ...] = ()
    if spec.kind != "number":
        choices = (True, False, *spec.choices)
    low, high = spec.allowed
    if name == "weight" and family == "average":
        # A recipe may subtract a model from an average, but a search would then meet sums of 0.
        low = max(low, 0.0)
    return ParameterRule(
        scope=spec.scope,
        default=spec.default,
        low=low,
        high=high,
        low_is_open=name == "density",  # a density of 0 is the same as a weight of 0
        search=spec.search,
        choices=choices,
    )


# The value that a recipe gives each tensor for each parameter, as plain numbers.


TOLERANCE = 1e-9
"""How far a value may be from the wanted value; values are of order one."""

Values = NDArray[np.float64]
"""(tensors,) float64 in the structure's order; NaN where the value has no effect."""


@dataclass(frozen=True)
class Inexpressible:
    """Why a space cannot express a recipe, in words."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Values of the parameters of a space's method.

    numbers: (parameter, model, or None for one of the whole recipe) -> a value for each tensor.
    switches: parameter that is not a number -> its value; left out where it has no effect.
    """

    numbers: Mapping[tuple[str, str | None], Values]
    switches: Mapping[str, bool | str]


def numbers_of(
    components: Components, recipe: Recipe, name: str, rule: ParameterRule, model: str | None
) -> Values | None:
    """A parameter of one model (None: of the recipe) for each tensor; None if it is not a number.

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


def same_choice(first: object, second: object) -> bool:
    """Whether two values of a switch mean the same: `rescale: true` is `rescale: l1`."""
    return first == second or {first, second} in ({True, "l1"}, {False, "none"})

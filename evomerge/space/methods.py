"""Which parameters of which merge methods a parameter space can search.

The mathematics of the methods is in merge/; here are only their parameters, with the values that
they have when a recipe does not give them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ParameterRule:
    """One parameter of a method.

    scope: given per model, or once for the recipe.
    default: what the method takes when a recipe is silent; None when it must be given.
    low, high: the values it may have; low_is_open excludes `low` itself.
    choices: the values of a parameter that is not a number; such a one is never searched.
    """

    scope: Literal["model", "recipe"]
    default: float | bool | None
    low: float = -math.inf
    high: float = math.inf
    low_is_open: bool = False
    choices: tuple[bool | str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MethodRule:
    """A merge method as a space sees it.

    family: `average` weighs whole models, `task_vector` adds differences from the base,
        `two_models` goes from one model to another.
    random: whether its recipe needs a mask seed.
    """

    family: Literal["average", "task_vector", "two_models"]
    parameters: dict[str, ParameterRule]
    random: bool = False


_WEIGHT = ParameterRule(scope="model", default=None)
_DENSITY = ParameterRule(scope="model", default=1.0, low=0.0, high=1.0, low_is_open=True)
_LAMBDA = ParameterRule(scope="recipe", default=1.0)


def _switch(default: bool, *more: str) -> ParameterRule:
    return ParameterRule(scope="recipe", default=default, choices=(True, False, *more))


METHODS: dict[str, MethodRule] = {
    "linear": MethodRule(
        family="average",
        parameters={
            "weight": ParameterRule(scope="model", default=None, low=0.0),
            "normalize": _switch(True),
        },
    ),
    "slerp": MethodRule(
        family="two_models",
        parameters={"t": ParameterRule(scope="recipe", default=None, low=0.0, high=1.0)},
    ),
    "task_arithmetic": MethodRule(
        family="task_vector",
        parameters={"weight": _WEIGHT, "lambda": _LAMBDA, "normalize": _switch(False)},
    ),
    "ties": MethodRule(
        family="task_vector",
        parameters={
            "weight": _WEIGHT,
            "density": _DENSITY,
            "lambda": _LAMBDA,
            "normalize": _switch(True),
            "rescale": _switch(False, "l1", "density"),
        },
    ),
    "dare_linear": MethodRule(
        family="task_vector",
        parameters={
            "weight": _WEIGHT,
            "density": _DENSITY,
            "lambda": _LAMBDA,
            "normalize": _switch(False),
            "rescale": _switch(True, "l1", "density"),
        },
        random=True,
    ),
    "dare_ties": MethodRule(
        family="task_vector",
        parameters={
            "weight": _WEIGHT,
            "density": _DENSITY,
            "lambda": _LAMBDA,
            "normalize": _switch(False),
            "rescale": _switch(True, "l1", "density"),
        },
        random=True,
    ),
}

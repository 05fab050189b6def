"""Merges as shares: every tensor of the result a weighted sum of the models' tensors.

The weights of a tensor add up to 1, the base's included. Averages, task arithmetic and single
models are such sums, so each can be written as any other where the numbers allow it; a method that
drops elements or elects signs is one only where a single model is left. Nothing here knows genes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evomerge.recipe import Recipe
from evomerge.space.layout import Layout
from evomerge.space.methods import rule_of
from evomerge.space.specification import Searched
from evomerge.space.wanted import (
    TOLERANCE,
    Inexpressible,
    Values,
    Wanted,
    numbers_of,
    switch_of,
)

Shares = Mapping[str, Values]
"""model -> its share of each tensor; the shares of a tensor add up to 1."""


def shares_of(layout: Layout, recipe: Recipe) -> Shares | Inexpressible:
    """A recipe as shares of the space's models, or why it has none."""
    method = recipe.merge_method
    if method not in ("linear", "task_arithmetic", "dare_linear"):
        return Inexpressible(f"{method} is not a method of this space, nor a weighted sum")
    rules = rule_of(method).parameters
    normalize = switch_of(recipe, "normalize", rules["normalize"])
    weights: dict[str, Values] = {}
    for model in dict.fromkeys((layout.base, *layout.models)):
        if rule_of(method).family == "task_vector" and model == recipe.base_model:
            continue
        values = numbers_of(layout.components, recipe, "weight", rules["weight"], model)
        if values is None:
            return Inexpressible("it gives no weight that is a number for every tensor")
        weights[model] = values
    total = np.sum(list(weights.values()), axis=0)
    if method == "linear":
        return _average(layout, recipe, weights, total, bool(normalize))
    if recipe.base_model != layout.base:
        return Inexpressible(f"its base_model is {recipe.base_model}, not {layout.base}")
    if method == "dare_linear":
        for model, values in weights.items():
            density = numbers_of(layout.components, recipe, "density", rules["density"], model)
            if density is None or (density[values != 0.0] < 1.0).any():
                return Inexpressible("it drops elements, so it is not a weighted sum")
    scale = numbers_of(layout.components, recipe, "lambda", rules["lambda"], None)
    if scale is None:
        return Inexpressible("it gives no lambda that is a number for every tensor")
    if normalize:
        scale = scale / np.where(np.abs(total) < 1e-8, 1.0, total)
    shares = {model: scale * values for model, values in weights.items()}
    return {**shares, layout.base: 1.0 - np.sum(list(shares.values()), axis=0)}


def from_shares(layout: Layout, shares: Shares) -> Wanted | Inexpressible:
    """The same sum by the space's own method."""
    family, sums = layout.rule.family, layout.rule.sums
    if sums == "none":
        return Inexpressible(f"{layout.spec.method} is no weighted sum of models")
    parts = set(layout.models) | ({layout.base} if family == "task_vector" else set())
    for model, values in shares.items():
        if model not in parts and (np.abs(values) > TOLERANCE).any():
            return Inexpressible(f"it has a share of {model}, which this space does not merge")
    stacked = np.array([shares[model] for model in layout.models])
    apart = np.minimum(np.abs(stacked), np.abs(stacked - 1.0))
    if sums == "single" and (apart > TOLERANCE).any():
        return Inexpressible(f"{layout.spec.method} is no weighted sum but of one model alone")
    if family == "average":
        if sums == "single":
            stacked = np.round(stacked)
        weights = dict(zip(layout.models, stacked, strict=True))
        return Wanted(
            numbers={("weight", model): values for model, values in weights.items()}, switches={}
        )
    if family == "two_models":
        return Wanted(numbers={("t", None): np.round(shares[layout.models[1]])}, switches={})
    return _task_vector(layout, shares)


def _average(
    layout: Layout, recipe: Recipe, weights: Shares, total: Values, normalize: bool
) -> Shares | Inexpressible:
    if recipe.base_model and all(entry.model != recipe.base_model for entry in recipe.models):
        return Inexpressible("its base_model has no weight")
    if normalize:
        if (np.abs(total) < 1e-8).any():
            return Inexpressible("its weights add up to 0")
        return {model: values / total for model, values in weights.items()}
    if (np.abs(total - 1.0) > TOLERANCE).any():
        return Inexpressible("its weights do not add up to 1")
    return weights


def _task_vector(layout: Layout, shares: Shares) -> Wanted | Inexpressible:
    given, rules = layout.spec.parameters, layout.rule.parameters
    scale = given.get("lambda", rules["lambda"].default)
    if isinstance(scale, Searched):
        scale = min(max(1.0, scale.low), scale.high)
    assert isinstance(scale, float)
    if scale == 0.0:
        return Inexpressible("lambda is 0 in this space")
    weights = {model: shares[model] / scale for model in layout.models}
    weights = {
        model: np.where(np.abs(values) <= TOLERANCE, 0.0, values)
        for model, values in weights.items()
    }
    stacked = np.array(list(weights.values()))
    if layout.rule.sums == "elected" and (np.count_nonzero(stacked, axis=0) > 1).any():
        return Inexpressible(f"{layout.spec.method} elects signs, so it is no weighted sum")
    total = stacked.sum(axis=0)
    normalize = given.get("normalize", rules["normalize"].default)
    if normalize and (stacked.any(axis=0) & (np.abs(total - 1.0) > TOLERANCE)).any():
        return Inexpressible("this space divides by the sum of the weights, which is not 1")
    numbers: dict[tuple[str, str | None], Values] = {("lambda", None): np.full(total.size, scale)}
    for model, values in weights.items():
        numbers["weight", model] = values
        if "density" in rules:
            numbers["density", model] = np.where(values == 0.0, np.nan, 1.0)
    return Wanted(numbers=numbers, switches={})

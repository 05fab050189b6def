"""The cells of a grid: every method on every subset of experts, with every seed that matters.

The cell of a merge method has a recipe; the cell of a search gets one when its search has ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import numpy as np

from evomerge.grid.specification import ExpertsSpec, GridSpec, MethodSpec
from evomerge.merge import METHODS
from evomerge.recipe import DType, Recipe, RecipeModel
from evomerge.search import (
    DARE_TIES,
    SLERP,
    TASK_ARITHMETIC,
    TIES,
    UNIFORM_SOUP,
    Baselines,
    parent_labels,
)
from evomerge.space import rule_of

DEFAULTS = {
    "linear": UNIFORM_SOUP,
    "task_arithmetic": TASK_ARITHMETIC,
    "ties": TIES,
    "dare_ties": DARE_TIES,
    "slerp": SLERP,
}
"""Methods with default parameters from their papers -> their label among the baselines."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A method on a subset of the experts.

    experts: places in models.sources, ascending. seed: for its masks or its search; None where it
    has no random part. recipe: its merge; None for a search that has not ended.
    """

    method: MethodSpec
    experts: tuple[int, ...]
    seed: int | None
    recipe: Recipe | None

    def label(self, sources: tuple[str, ...]) -> str:
        """Its name in the record."""
        names = parent_labels(sources)
        merged = " + ".join(names[place] for place in self.experts)
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{label_of(self.method)}: {merged}{seed}"


def label_of(method: MethodSpec) -> str:
    """The name of a method in tables."""
    if method.label is not None:
        return method.label
    assert method.method is not None
    return DEFAULTS.get(method.method, method.method)


def subsets_of(spec: ExpertsSpec, size: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Subsets of `size` of `count` experts, in lexicographic order.

    A larger draw contains every smaller one, so that a grid can be extended.
    """
    every = tuple(itertools.combinations(range(count), size))
    if spec.subsets == "all" or spec.subsets >= comb(count, size):
        return every
    # Raw output is the only stream numpy promises never to change; sorting it is a shuffle.
    bits = np.random.PCG64(np.random.SeedSequence((spec.seed, size)))
    order = np.argsort(bits.random_raw(len(every)), kind="stable")[: spec.subsets]
    return tuple(every[place] for place in sorted(order.tolist()))


def cells_of(grid: GridSpec, *, out_dtype: DType) -> tuple[Cell, ...]:
    """Every cell, by number of experts, then subset, then method, then seed."""
    return tuple(
        cell
        for size in grid.sizes
        for experts in subsets_of(grid.experts, size, len(grid.models.sources))
        for method in grid.methods
        for cell in _cells(grid, method, experts, out_dtype)
    )


def _cells(
    grid: GridSpec, method: MethodSpec, experts: tuple[int, ...], out_dtype: DType
) -> Iterator[Cell]:
    if method.method is None:
        for search_seed in grid.seeds:
            yield Cell(method=method, experts=experts, seed=search_seed, recipe=None)
        return
    known = METHODS.get(method.method)
    # An unknown name makes one recipe too; the merge engine refuses it with its own message.
    random = known is not None and known.random
    seeds: tuple[int | None, ...] = grid.seeds if random else (None,)
    for seed in seeds:
        recipe = _recipe(grid, method, experts, seed=seed, out_dtype=out_dtype)
        yield Cell(method=method, experts=experts, seed=seed, recipe=recipe)


def _recipe(
    grid: GridSpec,
    method: MethodSpec,
    experts: tuple[int, ...],
    *,
    seed: int | None,
    out_dtype: DType,
) -> Recipe:
    assert method.method is not None
    sources = tuple(grid.models.sources[place] for place in experts)
    if method.parameters is None and method.method in DEFAULTS:
        baselines = Baselines(
            base=grid.models.base, sources=sources, out_dtype=out_dtype, seed=seed or 0
        )
        named = {baseline.label: baseline.recipe for baseline in baselines.stage({})}
        if DEFAULTS[method.method] in named:  # SLERP is among them only for two models
            return named[DEFAULTS[method.method]]
    calibrated = method.method in METHODS and METHODS[method.method].statistics is not None
    block = {"seed": seed, "statistics": grid.models.statistics if calibrated else None}
    return Recipe(
        merge_method=method.method,
        base_model=_base_of(method.method, grid.models.base, sources),
        models=tuple(RecipeModel(model=source) for source in sources),
        parameters={**(method.parameters or {})},
        out_dtype=out_dtype,
        evomerge={key: value for key, value in block.items() if value is not None},
    )


def _base_of(method: str, base: str, sources: tuple[str, ...]) -> str | None:
    """The base model that a recipe of these models names; None for methods that need none."""
    if method not in METHODS or not METHODS[method].needs_base:
        return None
    return sources[0] if rule_of(method).family == "two_models" else base

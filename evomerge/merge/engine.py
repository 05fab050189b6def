"""The merge engine: a recipe in, a stream of named tensors out.

One tensor is merged at a time, so memory holds about one tensor per source whatever the size of
the models. Arithmetic is float32 and rounded once. The bytes depend on the recipe and the sources
alone: elementwise work uses operations that round the same in every lane, sums run in a fixed
order, random masks are hashes. Knows nothing of scores, and not where the tensors go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch

from evomerge.errors import RecipeError
from evomerge.merge.plan import Plan, TensorPlan, plan_merge
from evomerge.merge.random_mask import draw, draw_key
from evomerge.recipe import Recipe
from evomerge.sources import Source, check_compatible

_TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_DEFAULT_CACHE_BYTES = 2**30


class MergeEngine:
    """Executes recipes over one set of opened sources.

    cache_bytes: limit on what is kept between merges of the same sources (task vectors, random
    draws). It changes speed only; 0 keeps nothing.
    """

    def __init__(
        self, sources: Mapping[str, Source], *, cache_bytes: int = _DEFAULT_CACHE_BYTES
    ) -> None:
        """Sources by reference as recipes name them. Raises SourceError if they do not fit."""
        self._sources = dict(sources)
        self._structure = check_compatible(list(sources.values()))
        self._kept = _Kept(cache_bytes)

    def execute(self, recipe: Recipe) -> Iterator[tuple[str, torch.Tensor]]:
        """Merge: (checkpoint tensor name, tensor) in the order of the base (or the first model).

        Tensors are new memory in `out_dtype`, or in that model's storage dtype where it is None;
        tensors that are not of floating point are that model's own. Raises RecipeError at once,
        before any tensor is read.
        """
        unknown = next((name for name in recipe.references if name not in self._sources), None)
        if unknown is not None:
            opened = ", ".join(self._sources)
            raise RecipeError(f"models: {unknown} is not among the models opened here: {opened}")
        return self._stream(recipe, plan_merge(recipe, self._structure))

    def _stream(self, recipe: Recipe, plan: Plan) -> Iterator[tuple[str, torch.Tensor]]:
        members = [self._sources[reference] for reference in plan.members]
        lead = members[plan.base or 0]
        out_dtype = None if recipe.out_dtype is None else _TORCH_DTYPES[recipe.out_dtype]
        plans = {tensor.name: tensor for tensor in plan.tensors}
        for name in lead.structure.shapes:
            stored = lead.tensor(name)
            if not stored.is_floating_point():
                yield name, stored.clone()
                continue
            inputs = _TensorInputs(members, plan.base, plans[name], recipe.seed, self._kept)
            yield name, plan.method.merge(inputs).to(out_dtype or stored.dtype)


class _TensorInputs:
    """One tensor of every member, with its parameters; implements `Inputs`."""

    def __init__(
        self,
        sources: list[Source],
        base: int | None,
        plan: TensorPlan,
        seed: int,
        kept: _Kept,
    ) -> None:
        self.name = plan.name
        self.base = base
        self.members = range(len(sources))
        self.experts = tuple(member for member in self.members if member != base)
        self._sources = sources
        self._plan = plan
        self._seed = seed
        self._kept = kept

    def number(self, parameter: str, member: int | None = None) -> float:
        plan = self._plan
        values = plan.recipe_values if member is None else plan.member_values[member]
        value = values[parameter]
        assert isinstance(value, float)
        return value

    def switch(self, parameter: str) -> bool:
        value = self._plan.recipe_values[parameter]
        assert isinstance(value, bool)
        return value

    def choice(self, parameter: str) -> str:
        value = self._plan.recipe_values[parameter]
        assert isinstance(value, str)
        return value

    def tensor(self, member: int) -> torch.Tensor:
        return self._sources[member].tensor(self.name).float()

    def task_vector(self, member: int) -> torch.Tensor:
        assert self.base is not None
        base = self.base
        pair = (self._sources[member].reference, self._sources[base].reference)
        return self._kept.get(
            ("task_vector", self.name, *pair), lambda: self.tensor(member) - self.tensor(base)
        )

    def draws(self, member: int) -> torch.Tensor:
        # The place among the experts: listing the base or not must not change a model.
        place = self.experts.index(member)
        shape = self._sources[member].structure.shapes[self.name]

        def make() -> torch.Tensor:
            key = draw_key(seed=self._seed, place=place, tensor_name=self.name)
            return draw(key, math.prod(shape)).reshape(shape)

        return self._kept.get(("draws", self.name, self._seed, place), make)


class _Kept:
    """Tensors kept between merges, up to a limit.

    What came first stays: a search asks for the same tensors in the same order every time, where
    dropping the oldest would drop each just before it is wanted again.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._left_bytes = limit_bytes
        self._tensors: dict[tuple[object, ...], torch.Tensor] = {}

    def get(self, key: tuple[object, ...], make: Callable[[], torch.Tensor]) -> torch.Tensor:
        kept = self._tensors.get(key)
        if kept is not None:
            return kept
        made = make()
        if made.nbytes <= self._left_bytes:
            self._left_bytes -= made.nbytes
            self._tensors[key] = made
        return made

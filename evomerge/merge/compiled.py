"""Merges by compiled kernels alone, without torch, which takes longer to import than to merge.

The kernels, and so the bytes, are the same. Only plain checkpoints of the dtypes that kernels know
are merged so, by methods that say that they use nothing else; everything else is left to
`MergeEngine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from evomerge.merge.engine import merged_dtype
from evomerge.merge.inputs import TensorInputs
from evomerge.merge.kernels.storage import ELEMENT_TYPES, Elements
from evomerge.merge.methods.averages import COPY
from evomerge.merge.methods.registry import BUILT_IN
from evomerge.merge.plan.plan import Plan, TensorPlan
from evomerge.merge.tensor_cache import TensorCache
from evomerge.recipe import Recipe
from evomerge.sources import Checkpoint, Source

if TYPE_CHECKING:
    import torch

_ALIGNED_BYTES = 4
"""Compiled code reads numbers at places that their size divides; this is the largest size."""


class CompiledMerge:
    """One merge of a recipe; see `compiled_merge`."""

    def __init__(self, recipe: Recipe, plan: Plan, checkpoints: Mapping[str, Checkpoint]) -> None:
        """checkpoints: plain ones, by reference."""
        self._recipe = recipe
        self._tensors = {tensor.name: tensor for tensor in plan.tensors}
        self._checkpoints = checkpoints
        self._structures = {name: source.structure for name, source in checkpoints.items()}
        self._cache = TensorCache(limit_bytes=0)

    def execute(
        self, into: Callable[[str], Elements], order: Sequence[str]
    ) -> Iterator[tuple[str, Elements]]:
        """Merge the tensors of that order, into the elements that `into` gives for each."""
        for place, name in enumerate(order):
            for following in order[place + 1 : place + 2]:
                for member in self._tensors[following].members:
                    self._checkpoints[member.reference].prefetch(member.tensor)
            tensor, out = self._tensors[name], into(name)
            inputs = _ElementInputs(self._checkpoints, tensor, self._recipe.seed, self._cache)
            tensor.method.merge(inputs, cast("torch.Tensor", out))
            yield name, out

    def dtype(self, name: str) -> str:
        """torch's name of a merged tensor's dtype."""
        return merged_dtype(self._tensors[name], self._recipe, self._structures)


class _ElementInputs(TensorInputs):
    """Gives the kernels what they read without torch."""

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        plan: TensorPlan,
        seed: int,
        cache: TensorCache,
    ) -> None:
        super().__init__(checkpoints, plan, seed, cache, None, _as_it_is)
        self._checkpoints = checkpoints

    def stored(self, member: int) -> torch.Tensor:
        source_tensor = self._plan.members[member]
        checkpoint = self._checkpoints[source_tensor.reference]
        dtype = checkpoint.structure.dtypes[source_tensor.tensor]
        bits = checkpoint.mapped(source_tensor.tensor).view(ELEMENT_TYPES[dtype])
        # To the methods that `compiled_merge` lets through, this is a tensor.
        return cast("torch.Tensor", Elements(bits, dtype, self.shape))


def _as_it_is(reference: str, name: str, stored: torch.Tensor) -> torch.Tensor:
    return stored


def compiled_merge(
    recipe: Recipe, plan: Plan, sources: Mapping[str, Source]
) -> CompiledMerge | None:
    """The merge of a recipe by kernels alone; None where it needs more."""
    used = {member.reference for tensor in plan.tensors for member in tensor.members}
    checkpoints: dict[str, Checkpoint] = {}
    for reference in used:
        source = sources[reference]
        if not isinstance(source, Checkpoint) or not source.is_plain:
            return None
        checkpoints[reference] = source
    merge = CompiledMerge(recipe, plan, checkpoints)
    whole = all(
        tensor.method.compiled
        and (tensor.method is COPY or tensor.method is BUILT_IN.get(tensor.method.name))
        and merge.dtype(tensor.name) in ELEMENT_TYPES
        and _are_alike(tensor, checkpoints)
        for tensor in plan.tensors
    )
    return merge if whole else None


def _are_alike(tensor: TensorPlan, checkpoints: Mapping[str, Checkpoint]) -> bool:
    """Whether all members have one dtype that kernels know, at places where they can read it."""
    dtypes = {
        checkpoints[member.reference].structure.dtypes[member.tensor] for member in tensor.members
    }
    return (
        len(dtypes) == 1
        and dtypes <= ELEMENT_TYPES.keys()
        and all(
            checkpoints[member.reference].mapped(member.tensor).ctypes.data % _ALIGNED_BYTES == 0
            for member in tensor.members
        )
    )

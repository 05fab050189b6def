"""What a method is given to merge one tensor: the tensor of every member, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import NDArray

from evomerge.merge.kernels.masks import draw_key
from evomerge.merge.methods.registry import BUILT_IN
from evomerge.merge.plan.plan import TensorPlan
from evomerge.merge.statistics import Statistics
from evomerge.merge.tensor_cache import TensorCache
from evomerge.sources import Source

if TYPE_CHECKING:
    import torch

Place: TypeAlias = "Callable[[str, str, torch.Tensor], torch.Tensor]"
"""(model, name, stored tensor) -> the tensor where it is merged."""


class TensorInputs:
    """One tensor of every member, with its parameters; implements `Inputs`, which says more."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        plan: TensorPlan,
        seed: int,
        cache: TensorCache,
        statistics: Statistics | None,
        place: Place,
    ) -> None:
        self.name = plan.name
        self.shape = plan.shape
        self.base = plan.base
        self.members = range(len(plan.members))
        self.experts = tuple(member for member in self.members if member != plan.base)
        self._sources = sources
        self._plan = plan
        self._seed = seed
        self._cache = cache
        self._statistics = statistics
        self._place = place

    def number(self, parameter: str, member: int | None = None) -> float:
        """A number of the recipe, or of a member."""
        plan = self._plan
        values = plan.recipe_values if member is None else plan.member_values[member]
        value = values[parameter]
        assert isinstance(value, float)
        return value

    def switch(self, parameter: str) -> bool:
        """A switch of the recipe."""
        value = self._plan.recipe_values[parameter]
        assert isinstance(value, bool)
        return value

    def choice(self, parameter: str) -> str:
        """A choice of the recipe."""
        value = self._plan.recipe_values[parameter]
        assert isinstance(value, str)
        return value

    def stored(self, member: int) -> torch.Tensor:
        """A member's tensor where it is merged."""
        source_tensor = self._plan.members[member]
        stored = self._sources[source_tensor.reference].tensor(source_tensor.tensor)
        if self._plan.method.name not in BUILT_IN:
            stored = stored.clone()  # a package's method may write to it
        return self._place(source_tensor.reference, source_tensor.tensor, stored)

    def tensor(self, member: int) -> torch.Tensor:
        """A member's tensor in float32."""
        return self.stored(member).float()

    def task_vector(self, member: int) -> torch.Tensor:
        """A member's tensor minus the base's."""
        assert self.base is not None
        return self.tensor(member) - self.tensor(self.base)

    def draw_key(self, member: int) -> int:
        """The key of a member's random draws."""
        # Count experts only, so that listing the base or not does not change the draws.
        place = self.experts.index(member)
        return draw_key(seed=self._seed, place=place, tensor_name=self.name)

    def cached(
        self, kind: str, members: tuple[int, ...], make: Callable[[], NDArray[Any]]
    ) -> NDArray[Any]:
        """An array that the cache keeps."""
        return self._cache.get(self._key(kind, members), make)

    def keeps(self, kind: str, members: tuple[int, ...], size_bytes: int) -> bool:
        """Whether the cache keeps an array of this size."""
        return self._cache.keeps(self._key(kind, members), size_bytes)

    def _key(self, kind: str, members: tuple[int, ...]) -> tuple[str, ...]:
        source_tensors = [self._plan.members[member] for member in members]
        return (
            kind,
            *(part for member in source_tensors for part in (member.reference, member.tensor)),
        )

    def statistic(self, member: int, kind: str) -> torch.Tensor | None:
        """A stored statistic of a member's tensor."""
        assert self._statistics is not None, "the method did not say that it needs them"
        source_tensor = self._plan.members[member]
        return self._statistics.get(source_tensor.reference, kind, source_tensor.tensor)

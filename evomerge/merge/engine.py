"""The merge engine: a recipe in, a stream of named tensors out.

One tensor is merged at a time, so memory holds about one tensor whatever the size of the models.
Arithmetic is float32 and rounded once. The bytes depend on the recipe and the sources alone:
elementwise work uses operations that round the same in every lane, sums run in a fixed order,
random masks are hashes. Knows nothing of scores, and not where the tensors go.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from evomerge.errors import MergeError, RecipeError
from evomerge.merge.kernels.masks import draw_key
from evomerge.merge.methods.base import Inputs, Method
from evomerge.merge.methods.registry import BUILT_IN
from evomerge.merge.plan.plan import Plan, TensorPlan, plan_merge
from evomerge.merge.soundness import why_not_finite
from evomerge.merge.statistics import Statistics
from evomerge.merge.tensor_cache import TensorCache
from evomerge.recipe import Recipe
from evomerge.registry import package_errors
from evomerge.sources import Source, Structure, not_finite

# Where sources' tensors are while they are merged: mapped files, or copies that stay on a device.


_SHARE = 0.4
"""Of a device's memory that is free when merging begins; the rest is for activations and caches."""


class DeviceCache:
    """Tensors of sources on one device.

    What fits stays there for the next candidate; the rest is copied over each time. What came first
    stays, for every candidate asks for the same tensors in the same order. On the CPU tensors are
    the mapped files themselves.
    """

    def __init__(self, device: torch.device, *, limit_bytes: int | None = None) -> None:
        """limit_bytes: what may stay; None takes a share of what is free at the first tensor."""
        self.device = device
        self._left_bytes = limit_bytes
        self._kept: dict[tuple[str, str], torch.Tensor] = {}

    def place(self, reference: str, name: str, stored: torch.Tensor) -> torch.Tensor:
        """The tensor `name` of a model on the device; never to be written to."""
        if self.device == stored.device:
            return stored
        kept = self._kept.get((reference, name))
        if kept is not None:
            return kept
        if self._left_bytes is None:
            self._left_bytes = _free_share(self.device)
        copy = stored.to(self.device)
        if copy.nbytes <= self._left_bytes:
            self._left_bytes -= copy.nbytes
            self._kept[reference, name] = copy
        return copy


def _free_share(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return int(_SHARE * free_bytes)


_TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_CACHED_SHARE = 0.7
"""Of the machine's memory, what the page cache is taken to hold of the sources."""

Destination = Callable[[str], torch.Tensor | None]
"""tensor name -> memory to write the merged tensor into, or None."""


class MergeEngine:
    """Executes recipes over one set of opened sources.

    cache: keeps what no candidate changes between merges; it changes speed only. device: where
    methods that can merge there do, and sources that fit stay.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        cache: TensorCache | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Sources by reference as recipes name them."""
        self._sources = dict(sources)
        self._structures = {name: source.structure for name, source in sources.items()}
        self._cache = TensorCache() if cache is None else cache
        self._statistics: dict[str, Statistics] = {}
        self._here = DeviceCache(torch.device("cpu"))
        self._there = DeviceCache(torch.device(device))
        self._read = False
        # Sources that the page cache holds are read from disk once; larger ones each time.
        size_bytes = sum(_size_bytes(structure) for structure in self._structures.values())
        self._stream_from_disk = size_bytes > _CACHED_SHARE * _memory_bytes()

    def plan(self, recipe: Recipe) -> Plan:
        """How the recipe is executed on these sources. Raises RecipeError in one line."""
        return plan_merge(recipe, self._structures)

    def execute(
        self, recipe: Recipe, *, into: Destination | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Merge: (checkpoint tensor name, tensor) in the order of the plan.

        Tensors are in `out_dtype`, or in the leading model's storage dtype where it is None;
        tensors that are not of floating point are that model's own. Each is new memory, or what
        `into` gives for its name if that has its shape, dtype and device, without gaps. Raises
        RecipeError at once, before any tensor is read.
        """
        plan = self.plan(recipe)
        statistics = self._statistics_of(recipe, plan.tensors)
        return self._stream(recipe, plan, statistics, into or _nowhere)

    def merge_tensor(self, recipe: Recipe, tensor: TensorPlan) -> torch.Tensor:
        """One tensor of a plan of the recipe, in new memory: what `execute` yields for it."""
        statistics = self._statistics_of(recipe, [tensor])
        return self._merged(recipe, tensor, statistics, _nowhere)

    def _stream(
        self, recipe: Recipe, plan: Plan, statistics: Statistics | None, into: Destination
    ) -> Iterator[tuple[str, torch.Tensor]]:
        read_ahead, self._read = self._stream_from_disk or not self._read, True
        for place, tensor in enumerate(plan.tensors):
            if read_ahead:
                self.prefetch(plan.tensors[place + 1 : place + 2])
            yield tensor.name, self._merged(recipe, tensor, statistics, into)

    def _merged(
        self, recipe: Recipe, tensor: TensorPlan, statistics: Statistics | None, into: Destination
    ) -> torch.Tensor:
        device_cache = self._there if tensor.method.on_device else self._here
        inputs = _TensorInputs(
            self._sources, tensor, recipe.seed, self._cache, statistics, device_cache
        )
        dtype = merged_dtype(tensor, recipe, self._structures)
        out = _memory(into(tensor.name), tensor.shape, dtype, device_cache.device)
        if dtype.is_floating_point:
            _merge(tensor.method, inputs, out)
            # Finite numbers leave float16 alone soon; a model's own answers tell of the rest.
            what = not_finite(out) if dtype == torch.float16 else None
            if what:
                raise MergeError(why_not_finite(tensor, what, dtype, self._sources))
        else:
            out.copy_(inputs.stored(tensor.base or 0))
        return out

    def prefetch(self, tensors: Sequence[TensorPlan]) -> None:
        """Ask the system to read what these are merged of ahead; returns at once."""
        for tensor in tensors:
            for member in tensor.members:
                self._sources[member.reference].prefetch(member.tensor)

    def _statistics_of(self, recipe: Recipe, tensors: Sequence[TensorPlan]) -> Statistics | None:
        """The statistics that a recipe names; all that its method needs is there."""
        needed = {
            (member.reference, tensor.method.statistics)
            for tensor in tensors
            for member in tensor.members
            if tensor.method.statistics is not None
        }
        if not needed:
            return None
        folder = recipe.evomerge.get("statistics")
        if not isinstance(folder, str):
            raise RecipeError(
                f"evomerge.statistics: {recipe.merge_method} needs what `evomerge calibrate` "
                "writes; name its folder there"
            )
        if folder not in self._statistics:
            self._statistics[folder] = Statistics.open(folder, self._sources)
        for reference, kind in sorted(needed):
            self._statistics[folder].require(reference, kind)
        return self._statistics[folder]


def _merge(method: Method, inputs: Inputs, out: torch.Tensor) -> None:
    """Merge into `out`, by way of float32 where kernels do not write its dtype."""
    direct = out.dtype in _TORCH_DTYPES.values()
    work = out if direct else torch.empty(out.shape, device=out.device)
    if method.name in BUILT_IN:
        method.merge(inputs, work)
    else:
        _merge_by_package(method, inputs, work)
    if not direct:
        out.copy_(work)


def _merge_by_package(method: Method, inputs: Inputs, out: torch.Tensor) -> None:
    """Merge by a method that is not evomerge's own, whose mistakes are no candidate's."""
    name = method.name
    with package_errors(
        lambda raised: RecipeError(
            f"merge_method: {name}: its code raised {raised}; mend its package"
        )
    ):
        method.merge(inputs, out)


def merged_dtype(
    tensor: TensorPlan, recipe: Recipe, structures: Mapping[str, Structure]
) -> torch.dtype:
    """What a merged tensor is stored as: what the recipe says, else as in its base or first model.

    What is not of floating point stays as it is.
    """
    leading = tensor.members[tensor.base or 0]
    stored: torch.dtype = getattr(torch, structures[leading.reference].dtypes[leading.tensor])
    if recipe.out_dtype is None or not stored.is_floating_point:
        return stored
    return _TORCH_DTYPES[recipe.out_dtype]


def _size_bytes(structure: Structure) -> int:
    elements = sum(math.prod(shape) for shape in structure.shapes.values())
    return elements * _TORCH_DTYPES[structure.dtype].itemsize


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _nowhere(name: str) -> None:
    return None


def _memory(
    given: torch.Tensor | None, shape: Sequence[int], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """What is given if the merged tensor can be written there as it is, else new memory."""
    fits = (
        given is not None
        and given.shape == tuple(shape)
        and given.dtype == dtype
        and given.is_contiguous()
        and given.device.type == device.type
    )
    if fits and given is not None:
        return given
    return torch.empty(tuple(shape), dtype=dtype, device=device)


class _TensorInputs:
    """One tensor of every member, with its parameters; implements `Inputs`."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        plan: TensorPlan,
        seed: int,
        cache: TensorCache,
        statistics: Statistics | None,
        device_cache: DeviceCache,
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
        self._device_cache = device_cache

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

    def stored(self, member: int) -> torch.Tensor:
        of = self._plan.members[member]
        stored = self._sources[of.reference].tensor(of.tensor)
        if self._plan.method.name not in BUILT_IN:
            stored = stored.clone()  # what a package writes to is no other model's
        return self._device_cache.place(of.reference, of.tensor, stored)

    def tensor(self, member: int) -> torch.Tensor:
        return self.stored(member).float()

    def task_vector(self, member: int) -> torch.Tensor:
        assert self.base is not None
        return self.tensor(member) - self.tensor(self.base)

    def draw_key(self, member: int) -> int:
        # The place among the experts: listing the base or not must not change a model.
        place = self.experts.index(member)
        return draw_key(seed=self._seed, place=place, tensor_name=self.name)

    def cached(
        self, kind: str, members: tuple[int, ...], make: Callable[[], NDArray[Any]]
    ) -> NDArray[Any]:
        return self._cache.get(self._key(kind, members), make)

    def keeps(self, kind: str, members: tuple[int, ...], size_bytes: int) -> bool:
        return self._cache.keeps(self._key(kind, members), size_bytes)

    def _key(self, kind: str, members: tuple[int, ...]) -> tuple[str, ...]:
        of = [self._plan.members[member] for member in members]
        return (kind, *(part for member in of for part in (member.reference, member.tensor)))

    def statistic(self, member: int, kind: str) -> torch.Tensor | None:
        assert self._statistics is not None, "the method did not say that it needs them"
        of = self._plan.members[member]
        return self._statistics.get(of.reference, kind, of.tensor)

"""The merge engine: it turns a recipe into a stream of named tensors.

It merges one tensor at a time, so memory holds about one tensor, however large the models are.
Arithmetic is float32, and each result is rounded once. The same recipe and sources always give the
same bytes: elementwise operations round the same way in every lane, sums run in a fixed order, and
random masks are hashes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias, get_args

from evomerge.deferred import torch
from evomerge.devices import free_share
from evomerge.errors import MergeError, RecipeError
from evomerge.merge.inputs import TensorInputs
from evomerge.merge.methods.base import Inputs, Method
from evomerge.merge.methods.registry import BUILT_IN
from evomerge.merge.plan.plan import Plan, TensorPlan, plan_merge
from evomerge.merge.soundness import why_not_finite
from evomerge.merge.statistics import Statistics
from evomerge.merge.tensor_cache import TensorCache
from evomerge.recipe import DType, Recipe
from evomerge.registry import package_errors
from evomerge.sources import (
    ITEM_BYTES,
    Source,
    Structure,
    bounds_of,
    not_finite,
    not_finite_within,
)

# Where the sources' tensors are during a merge: in mapped files, or in copies on a device.


class DeviceCache:
    """Tensors of sources on one device.

    Tensors that fit stay on the device for the next candidate; the others are copied each time. The
    first tensors stay, because every candidate reads the same tensors in the same order. On the
    CPU, tensors are read from the mapped files without a copy.
    """

    def __init__(self, device: torch.device, *, limit_bytes: int | None = None) -> None:
        """limit_bytes: how much may stay; None: a share of what is free at the first tensor."""
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
            self._left_bytes = free_share(self.device)
        copy = stored.to(self.device)
        if copy.nbytes <= self._left_bytes:
            self._left_bytes -= copy.nbytes
            self._kept[reference, name] = copy
        return copy


_CACHED_SHARE = 0.7
"""The share of the machine's memory that is assumed to cache the sources' files."""

Destination: TypeAlias = "Callable[[str], torch.Tensor | None]"
"""tensor name -> memory to write the merged tensor into, or None."""


class MergeEngine:
    """Executes recipes over one set of opened sources.

    cache: keeps arrays that are the same for every candidate; it affects speed only. device: where
    methods that can run there merge, and where sources that fit stay.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        cache: TensorCache | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """sources: by reference, as recipes name them."""
        self._sources = dict(sources)
        self._structures = {name: source.structure for name, source in sources.items()}
        self._cache = TensorCache() if cache is None else cache
        self._statistics: dict[str, Statistics] = {}
        self._device = device
        self._read = False
        # Sources that the page cache holds are read from disk once; larger ones each time.
        size_bytes = sum(_size_bytes(structure) for structure in self._structures.values())
        self._stream_from_disk = size_bytes > _CACHED_SHARE * _memory_bytes()

    @cached_property
    def _cpu_cache(self) -> DeviceCache:
        return DeviceCache(torch.device("cpu"))

    @cached_property
    def _device_cache(self) -> DeviceCache:
        return DeviceCache(torch.device(self._device))

    def plan(self, recipe: Recipe) -> Plan:
        """How the recipe is executed on these sources. Raises RecipeError in one line."""
        return plan_merge(recipe, self._structures)

    def execute(
        self,
        recipe: Recipe,
        *,
        into: Destination | None = None,
        order: Sequence[str] | None = None,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Merge a recipe: yields (checkpoint tensor name, tensor) in the order of the plan.

        order: the names of the tensors to merge, in an order of their own.

        Tensors are in `out_dtype`, or in the leading model's storage dtype where it is None;
        tensors that are not floating point are copied from that model. A tensor is written into the
        memory that `into` gives for its name, if that is contiguous and has the right shape, dtype
        and device; otherwise into new memory. Raises RecipeError at once, before any tensor is
        read.
        """
        tensors = self.plan(recipe).tensors
        if order is not None:
            planned = {tensor.name: tensor for tensor in tensors}
            tensors = tuple(planned[name] for name in order)
        statistics = self._statistics_of(recipe, tensors)
        return self._stream(recipe, tensors, statistics, into or _nowhere)

    def merge_tensor(self, recipe: Recipe, tensor: TensorPlan) -> torch.Tensor:
        """Merge one tensor of the recipe's plan into new memory, as `execute` does."""
        statistics = self._statistics_of(recipe, [tensor])
        out = self._merged(recipe, tensor, statistics, _nowhere)
        if _overflows_easily(out):
            self._check_finite(tensor, not_finite(out), out.dtype)
        return out

    def coefficients(self, recipe: Recipe, tensor: TensorPlan) -> tuple[float, ...] | None:
        """What each member of a tensor of the plan counts with; None if it is no sum of them."""
        inputs = TensorInputs(
            self._sources, tensor, recipe.seed, self._cache, None, self._cpu_cache.place
        )
        return tensor.method.coefficients(inputs)

    def _stream(
        self,
        recipe: Recipe,
        tensors: Sequence[TensorPlan],
        statistics: Statistics | None,
        into: Destination,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        read_ahead, self._read = self._stream_from_disk or not self._read, True
        unread: list[tuple[TensorPlan, torch.Tensor]] = []
        for place, tensor in enumerate(tensors):
            if read_ahead:
                self.prefetch(tensors[place + 1 : place + 2])
            out = self._merged(recipe, tensor, statistics, into)
            if _overflows_easily(out):
                if out.device.type == "cpu":
                    self._check_finite(tensor, not_finite(out), out.dtype)
                else:
                    unread.append((tensor, bounds_of(out)))
            yield tensor.name, out
        if unread:  # read in one copy, so that no tensor waits for the device
            all_bounds = torch.stack([bounds for _, bounds in unread]).tolist()
            for (tensor, _), (least, greatest) in zip(unread, all_bounds, strict=True):
                self._check_finite(tensor, not_finite_within(least, greatest), torch.float16)

    def _check_finite(self, tensor: TensorPlan, non_finite: str | None, dtype: torch.dtype) -> None:
        if non_finite:
            raise MergeError(why_not_finite(tensor, non_finite, dtype, self._sources))

    def _merged(
        self, recipe: Recipe, tensor: TensorPlan, statistics: Statistics | None, into: Destination
    ) -> torch.Tensor:
        device_cache = self._device_cache if tensor.method.on_device else self._cpu_cache
        inputs = TensorInputs(
            self._sources, tensor, recipe.seed, self._cache, statistics, device_cache.place
        )
        dtype: torch.dtype = getattr(torch, merged_dtype(tensor, recipe, self._structures))
        out = _memory(into(tensor.name), tensor.shape, dtype, device_cache.device)
        if dtype.is_floating_point:
            _merge(tensor.method, inputs, out)
        else:
            out.copy_(inputs.stored(tensor.base or 0))
        return out

    def prefetch(self, tensors: Sequence[TensorPlan]) -> None:
        """Ask the system to read the members of these tensors ahead; returns at once."""
        for tensor in tensors:
            for member in tensor.members:
                self._sources[member.reference].prefetch(member.tensor)

    def _statistics_of(self, recipe: Recipe, tensors: Sequence[TensorPlan]) -> Statistics | None:
        """The statistics that a recipe names and its method needs; None if it needs none."""
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
                f"evomerge.statistics: {recipe.merge_method} needs statistics; name the "
                "folder that `evomerge calibrate` wrote"
            )
        if folder not in self._statistics:
            self._statistics[folder] = Statistics.open(folder, self._sources)
        for reference, kind in sorted(needed):
            self._statistics[folder].require(reference, kind)
        return self._statistics[folder]


def _overflows_easily(tensor: torch.Tensor) -> bool:
    """Whether to look for bad numbers; those of other dtypes show in the model's answers."""
    return tensor.dtype == torch.float16 and tensor.numel() > 0


def _merge(method: Method, inputs: Inputs, out: torch.Tensor) -> None:
    """Merge into `out`, through float32 where kernels cannot write its dtype."""
    direct = str(out.dtype).removeprefix("torch.") in get_args(DType)
    work = out if direct else torch.empty(out.shape, device=out.device)
    if method.name in BUILT_IN:
        method.merge(inputs, work)
    else:
        _merge_by_package(method, inputs, work)
    if not direct:
        out.copy_(work)


def _merge_by_package(method: Method, inputs: Inputs, out: torch.Tensor) -> None:
    """Merge with a package's method. An exception in its code is not the candidate's failure."""
    name = method.name
    with package_errors(
        lambda raised: RecipeError(
            f"merge_method: {name}: its code raised {raised}; mend its package"
        )
    ):
        method.merge(inputs, out)


def merged_dtype(tensor: TensorPlan, recipe: Recipe, structures: Mapping[str, Structure]) -> str:
    """torch's name of a merged tensor's dtype: the recipe's, else that of its base or first model.

    Tensors that are not floating point keep their dtype.
    """
    leading = tensor.members[tensor.base or 0]
    stored = structures[leading.reference].dtypes[leading.tensor]
    if recipe.out_dtype is None or not is_floating_point(stored):
        return stored
    return recipe.out_dtype


def is_floating_point(dtype: str) -> bool:
    """Whether torch's dtype of that name is of floating point numbers."""
    return dtype.startswith(("float", "bfloat"))


def _size_bytes(structure: Structure) -> int:
    elements = sum(math.prod(shape) for shape in structure.shapes.values())
    return elements * ITEM_BYTES[structure.dtype]


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _nowhere(name: str) -> None:
    return None


def _memory(
    offered: torch.Tensor | None, shape: Sequence[int], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """The given memory if the merged tensor can be written there directly, else new memory."""
    fits = (
        offered is not None
        and offered.shape == tuple(shape)
        and offered.dtype == dtype
        and offered.is_contiguous()
        and offered.device.type == device.type
    )
    if fits and offered is not None:
        return offered
    # What is copied to a GPU then is copied while the next tensor is merged.
    pinned = device.type == "cpu" and offered is not None and offered.device.type == "cuda"
    return torch.empty(tuple(shape), dtype=dtype, device=device, pin_memory=pinned)

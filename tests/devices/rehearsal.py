"""A device that is not there: tensors that say `cuda:0`, with what a real one would be asked to do.

Values are computed on the CPU, or not at all, for models that no memory here would hold. Every
operation is seen: one that mixes devices raises, as on a GPU, and copies, synchronisations, kernels
and memory are counted. Times mean nothing.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any
from unittest import mock

import torch
from torch._C import DispatchKey
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from evomerge.merge.kernels import portable
from tests.devices.tensors import (
    CUDA,
    INSIDE,
    Counts,
    DeviceTensor,
    MixedDevicesError,
    NamedDevices,
    values_of,
)

_LARGEST_READ = 2**22
"""Elements that can be read where nothing is computed; more would be a copy of weights."""


_VALUES_NEEDED = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",  # reads its largest number
    "aten::equal",
    "aten::repeat_interleave.Tensor",
    "aten::_linalg_svd",
    "aten::linalg_eigh",
    "aten::_linalg_eigh",
}
"""Operations that make a GPU's host wait, because a shape or a result is read from values."""

_WHOLE = {"aten::scaled_dot_product_attention"}
"""Operations of several steps that a GPU has one kernel for."""


class Rehearsal(TorchDispatchMode):
    """Within, `cuda` is a device that counts; `counts` says what it was asked to do.

    memory_bytes: what it says it has; nothing ends when more is taken. computed: whether values
    are computed; if not, every value that is read is 1, and the host's tensors are on the meta
    device.
    """

    def __init__(self, *, memory_bytes: int = 2**40, computed: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # torch asks for no driver while a mode of this key is at work.
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        self.counts = Counts()
        self.memory_bytes = memory_bytes
        self._host = torch.device("cpu" if computed else "meta")
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._operations: dict[str, int] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Rehearsal:
        stack = contextlib.ExitStack()
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        for name, stands_in in (
            ("torch.cuda.is_available", lambda: True),
            ("torch.cuda.device_count", lambda: 1),
            ("torch.cuda.synchronize", self._synchronize),
            ("torch.cuda.empty_cache", lambda: None),
            ("torch.cuda.mem_get_info", self._memory),
            ("torch.cuda.Event", functools.partial(_Event, self)),
            ("torch.cuda.current_stream", lambda device: None),
            ("torch.compile", self._compile),
        ):
            stack.enter_context(mock.patch(name, stands_in))
        portable._compiled.cache_clear()
        stack.callback(portable._compiled.cache_clear)
        stack.enter_context(NamedDevices())
        super().__enter__()  # type: ignore[no-untyped-call]
        self._stack = stack
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self._stack.close()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Within, operations that one is made of are seen too."""
        super().__enter__()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counts]:
        """Counts of what is asked within; complete at its end."""
        before, found = self.counts.copy(), Counts()
        self.counts.peak_bytes = self.counts.live_bytes
        yield found
        for field in fields(found):
            setattr(found, field.name, getattr(self.counts.since(before), field.name))
        self.counts.peak_bytes = max(self.counts.peak_bytes, before.peak_bytes)

    def operations(self) -> dict[str, int]:
        """How often each operation was seen, for a look at what is asked."""
        return dict(sorted(self._operations.items(), key=lambda item: -item[1]))

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        wanted = kwargs.get("device")
        # In hooks of a backward pass, functions come here as they were called.
        to_device = wanted is not None and torch.device(wanted).type in (INSIDE.type, CUDA.type)
        if not ours and not to_device:
            return operation(*args, **kwargs)
        name = operation._schema.name
        if name not in _WHOLE and operation.has_kernel_for_dispatch_key(
            DispatchKey.CompositeImplicitAutograd
        ):
            with self._at_work(), torch._C.DisableTorchFunction():
                return operation.decompose(*args, **kwargs)
        self._operations[name] = self._operations.get(name, 0) + 1
        if name == "aten::_to_copy" and wanted is not None:
            return self._copied(operation, args, kwargs, to_device=to_device)
        if name == "aten::copy_" and len(ours) < len(tensors):
            return self._copied_into(*args)
        self._refuse_mixed(operation, tensors, args)
        return self._run(operation, tensors, args, kwargs)

    def _run(self, operation: Any, tensors: list[Any], args: Any, kwargs: Any) -> Any:
        """Compute one operation on the device."""
        name = operation._schema.name
        if self._waits(name, args):
            self.counts.waits += 1
        if self._host.type == "meta" and name in _UNCOMPUTED:
            return tree_map_only(torch.Tensor, self._placed, _UNCOMPUTED[name](*args, **kwargs))
        given = {_storage(tensor) for tensor in tensors}
        if "device" in kwargs:
            kwargs = {**kwargs, "device": self._host}
        plain_args, plain_kwargs = tree_map_only(torch.Tensor, values_of, (args, kwargs))
        result = operation(*plain_args, **plain_kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        new = any(_storage(tensor) not in given for tensor in made)
        written = operation._schema.is_mutable
        if written or (new and not name.startswith(("aten::empty", "aten::new_empty"))):
            self.counts.launches += 1
        if written:
            return _same_objects(result, plain_args, args)
        return tree_map_only(torch.Tensor, self._placed, result)

    def _waits(self, name: str, args: Any) -> bool:
        if name in _VALUES_NEEDED:
            return True
        if name not in ("aten::index", "aten::index_put", "aten::index_put_"):
            return False
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        # One value put where a mask says needs no list of places.
        filled = name != "aten::index" and args[2].numel() == 1 and len(masks) == len(args[1])
        return bool(masks) and not filled

    def _refuse_mixed(self, operation: Any, tensors: list[Any], args: Any) -> None:
        allowed = set()
        if operation._schema.name.startswith("aten::index") and len(args) > 1:
            allowed = {id(index) for index in args[1] or () if isinstance(index, torch.Tensor)}
        if operation._schema.name in ("aten::empty_like", "aten::ones_like", "aten::zeros_like"):
            return  # of the tensor, only the shape counts
        for tensor in tensors:
            if isinstance(tensor, DeviceTensor) or (tensor.dim() == 0 and tensor.is_cpu):
                continue
            if id(tensor) in allowed and tensor.is_cpu:  # it is copied, item by item
                self._upload(tensor)
                continue
            raise MixedDevicesError(f"{operation} of cuda:0 got a tensor of {tensor.device}")

    def _copied(self, operation: Any, args: Any, kwargs: Any, *, to_device: bool) -> Any:
        """A copy to the device, from it, or on it into another dtype."""
        (source,) = args
        ours = isinstance(source, DeviceTensor)
        if source.is_meta and self._host.type != "meta":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        values = operation(values_of(source), **{**kwargs, "device": self._host})
        if not to_device:
            self._download(values)
            return self._read(values)
        if ours:
            self.counts.launches += 1
        else:
            self._upload(source, non_blocking=kwargs.get("non_blocking", False))
        return self._placed(values)

    def _copied_into(self, target: Any, source: Any, non_blocking: bool = False) -> Any:
        if isinstance(target, DeviceTensor):
            self._upload(source, non_blocking=non_blocking)
            target.held.copy_(source)
        else:
            self._download(source.held)
            target.copy_(self._read(source.held))
        return target

    def _read(self, values: torch.Tensor) -> torch.Tensor:
        if self._host.type != "meta" or values.numel() > _LARGEST_READ:
            return values
        return torch.ones(values.shape, dtype=values.dtype)

    def _upload(self, values: torch.Tensor, *, non_blocking: bool = False) -> None:
        self.counts.uploads += 1
        self.counts.uploaded_bytes += values.nbytes
        if not (non_blocking and getattr(values, "_is_pinned", False)):
            self.counts.waits += 1

    def _download(self, values: torch.Tensor) -> None:
        self.counts.downloads += 1
        self.counts.downloaded_bytes += values.nbytes
        self.counts.waits += 1

    def _placed(self, values: torch.Tensor) -> DeviceTensor:
        """The values as a tensor of the device; new memory is counted until it is free."""
        storage = values.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            size_bytes = storage.nbytes()
            counts = self.counts
            counts.allocations += 1
            counts.live_bytes += size_bytes
            counts.peak_bytes = max(counts.peak_bytes, counts.live_bytes)
            weakref.finalize(storage, _free, counts, size_bytes)
        return DeviceTensor(values)

    def _synchronize(self, device: object = None) -> None:
        self.counts.waits += 1

    def _memory(self, device: object = None) -> tuple[int, int]:
        return max(0, self.memory_bytes - self.counts.live_bytes), self.memory_bytes

    def _compile(self, work: Callable[..., Any], **_: object) -> Callable[..., Any]:
        """What torch's compiler makes of a pass: one kernel, without tensors in between."""

        def kernel(*args: Any) -> Any:
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            for tensor in tensors:
                if not isinstance(tensor, DeviceTensor):
                    raise MixedDevicesError(f"{work.__name__} got a tensor of {tensor.device}")
            self.counts.launches += 1
            values = work(*tree_map_only(torch.Tensor, values_of, args))
            return tree_map_only(torch.Tensor, self._placed, values)

        return kernel


class _Event:
    """A mark in the device's stream; waiting for it is waiting for the device."""

    def __init__(self, rehearsal: Rehearsal, *, enable_timing: bool = False) -> None:
        assert enable_timing
        self._rehearsal = rehearsal

    def record(self, stream: object) -> None:
        """Nothing: no time passes."""

    def synchronize(self) -> None:
        """Wait."""
        self._rehearsal._synchronize()

    def elapsed_time(self, other: _Event) -> float:
        """Milliseconds."""
        return 1.0


def _free(counts: Counts, size_bytes: int) -> None:
    counts.live_bytes -= size_bytes


def _storage(tensor: torch.Tensor) -> int:
    return int(values_of(tensor).untyped_storage()._cdata)


def _same_objects(result: Any, plain_args: Any, args: Any) -> Any:
    """The result with the tensors that were written to, as they were given."""
    given = {
        id(plain): original
        for plain, original in zip(tree_leaves(plain_args), tree_leaves(args), strict=True)
        if isinstance(original, DeviceTensor)
    }
    return tree_map_only(torch.Tensor, lambda value: given.get(id(value), value), result)


def _ones(values: torch.Tensor, *_: object, **__: object) -> Any:
    return torch.ones((), dtype=values.dtype).item()


def _tally(values: torch.Tensor, weights: Any = None, minlength: int = 0) -> torch.Tensor:
    dtype = torch.int64 if weights is None else weights.dtype
    return torch.empty(minlength, dtype=dtype, device="meta")


_UNCOMPUTED: dict[str, Callable[..., Any]] = {
    "aten::_local_scalar_dense": _ones,
    "aten::bincount": _tally,
}
"""What operations give whose result, or its shape, is a matter of values."""

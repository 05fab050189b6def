"""Tensors of a device that is not there, and how its name gets past torch.

A CPU build of torch refuses `cuda`. So inside torch the tensors are of `lazy`, a device without a
driver to ask for, and outside they say `cuda:0`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CUDA, INSIDE = torch.device("cuda:0"), torch.device("lazy:0")


@dataclass(kw_only=True)
class Counts:
    """What the device was asked to do.

    uploads, downloads: copies from and to the host, and their bytes. waits: how often the host
    waited for the device: downloads, uploads of memory that is not pinned, and operations that need
    a value to go on. launches: kernels;
    a pass that torch's compiler makes one of is one. allocations: new memory. live_bytes,
    peak_bytes: of all that is on the device.
    """

    uploads: int = 0
    uploaded_bytes: int = 0
    downloads: int = 0
    downloaded_bytes: int = 0
    waits: int = 0
    launches: int = 0
    allocations: int = 0
    live_bytes: int = 0
    peak_bytes: int = 0

    def since(self, before: Counts) -> Counts:
        """What was asked after `before`; bytes on the device are those of now."""
        asked = {
            field.name: getattr(self, field.name)
            - (0 if field.name in ("live_bytes", "peak_bytes") else getattr(before, field.name))
            for field in fields(self)
        }
        return Counts(**asked)

    def copy(self) -> Counts:
        """The same counts, for later."""
        return Counts(**{field.name: getattr(self, field.name) for field in fields(self)})


class MixedDevicesError(RuntimeError):
    """An operation got tensors of the device and of the host."""


class DeviceTensor(torch.Tensor):
    """A tensor of the device. values: on the CPU, or on the meta device if none are computed."""

    held: torch.Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> DeviceTensor:
        # A view of a tensor that is none of inference mode must be none, too.
        with torch.inference_mode(False):
            made: DeviceTensor = torch.Tensor._make_wrapper_subclass(
                cls,
                values.shape,
                strides=values.stride(),
                storage_offset=values.storage_offset(),
                dtype=values.dtype,
                device=INSIDE,
            )
        made.held = values
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """As on a GPU."""
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """As on a GPU."""
        return True

    def data_ptr(self) -> int:
        """Where the values are; without any, where they would be."""
        return self.held.data_ptr() or id(self.held.untyped_storage())

    def untyped_storage(self) -> torch.UntypedStorage:
        """That of the values."""
        return self.held.untyped_storage()

    def tolist(self) -> Any:
        """The values, after a copy to the host."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refused, as on a GPU."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.held!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{operation} on a device tensor outside its rehearsal")


class NamedDevices(TorchFunctionMode):
    """Names the device as torch's own parts can take it, where `cuda` is asked for."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.device:
            return function(*args, **(kwargs or {}))
        if function is torch.Tensor.pin_memory:
            return _pinned(args[0])
        kwargs = {key: _inside(value) for key, value in (kwargs or {}).items()}
        if kwargs.pop("pin_memory", False):
            return _pinned(function(*args, **kwargs))
        return function(*map(_inside, args), **kwargs)


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    assert not isinstance(tensor, DeviceTensor)
    pinned = tensor.clone()
    pinned._is_pinned = True  # type: ignore[attr-defined]
    return pinned


def _inside(value: object) -> object:
    if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
        return INSIDE
    return INSIDE if isinstance(value, torch.device) and value.type == "cuda" else value


def values_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.held if isinstance(tensor, DeviceTensor) else tensor

"""Checkpoints of packed weights: read as plain ones where transformers unpacks them, else refused.

Weights in FP8 with a scale for each block (DeepSeek, Qwen, MiniMax) and experts in FP4 (gpt-oss,
DeepSeek V4) are unpacked when they are read, by transformers' own arithmetic. Codes that need a
package or calibrated data are refused by name, with what to do.

The sign of packed weights can be in the configuration, in a file beside it, or in the tensors
alone: scales beside the weights, or weights that are integers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from evomerge.deferred import torch
from evomerge.errors import SourceError
from evomerge.recipe import DType
from evomerge.sources.header import Entry
from evomerge.sources.layers import setting

_SETTINGS = ("quantization_config", "compression_config", "quantization")
_FILES = (
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
    "quanto_qmap.json",
)
"""Files beside the weights: of old GPTQ and AWQ, ModelOpt, and Quanto."""

_PACKED = re.compile(
    r"\.(qweight|qzeros|g_idx|absmax|nested_absmax|quant_map|nested_quant_map|SCB|weight_packed|"
    r"weight_scale|weight_scale_inv|weight_scale_2|weight_zero_point|weight_shape|input_scale|"
    r"weight_format|quant_state\..*)$|_(blocks|scale_inv)$"
)
"""Endings of names of tensors that unpack packed weights, and of some packed weights."""

_FEW_BITS = ("float8", "f8", "f6", "f4")
_WHOLE = ("uint8", "int8", "int16", "int32", "uint16", "uint32", "int64", "uint64", "bool")

_INSTEAD = {
    "bitsandbytes": (
        "load it with transformers where bitsandbytes is installed, call model.dequantize(), and "
        "give the folder that model.save_pretrained writes"
    ),
    "compressed-tensors": (
        "load it with transformers where compressed-tensors is installed, with "
        "quantization_config=CompressedTensorsConfig(run_compressed=False), and give the folder "
        "that model.save_pretrained writes; or give the model before quantisation"
    ),
}
"""Method of quantisation -> what to do about it, where there is more than the unpacked model."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A weight that is stored in several tensors.

    parts: names of those tensors. unpack: makes the weight of them, in the dtype of its entry.
    cut: whether a block is cut off at the end of the matrix, which transformers cannot unpack.
    largest: code without its scale.
    """

    parts: tuple[str, ...]
    unpack: Callable[..., torch.Tensor]
    largest: float
    cut: bool = False

    def bound(self, scales: torch.Tensor) -> float:
        """A number that no weight exceeds; NaN or infinity if a scale is that."""
        if not scales.dtype.is_floating_point:
            return self.largest * 2.0 ** (int(scales.max()) - 127)
        return self.largest * float(scales.float().abs().max())


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A checkpoint as it is after it is unpacked.

    config: without a quantisation. entries: a plain weight for the tensors that store it; its
    place is that of the first of them. packed: those weights by name.
    """

    config: Mapping[str, Any]
    entries: Mapping[str, Entry]
    packed: Mapping[str, Packed]


def unpacked(
    folder: Path, config: Mapping[str, Any], entries: Mapping[str, Entry], named: str
) -> Unpacked:
    """The checkpoint with plain weights. Raises SourceError where it cannot be unpacked."""
    method = _method(config)
    found: dict[str, tuple[Packed, Entry]] = {}
    if method in _READERS:
        dtype = _plain_dtype(config)
        found = _READERS[method](config, entries, dtype, named)
        config = {key: value for key, value in config.items() if key != _SETTINGS[0]}
    parts = {part for packed, _ in found.values() for part in packed.parts}
    first = {packed.parts[0]: (name, entry) for name, (packed, entry) in found.items()}
    plain: dict[str, Entry] = {}
    for name, entry in entries.items():
        if name in first:
            plain[first[name][0]] = first[name][1]
        elif name not in parts and not (method == "fp8" and name.endswith("activation_scale")):
            plain[name] = entry
    for name in found:
        if name in entries and name not in parts:
            raise SourceError(f"{named}: stores {name} twice, packed and not; get the model again")
    sign = _sign(folder, config, plain) or _left_over(method, entries, parts)
    if sign:
        mend = _INSTEAD.get(method, "give the model before quantisation")
        by = f"{method}, by " if method and method not in _READERS else ""
        raise SourceError(f"{named}: is quantised ({by}{sign}); {mend}")
    return Unpacked(
        config=config,
        entries=plain,
        packed={name: packed for name, (packed, _) in found.items()},
    )


def _method(config: Mapping[str, Any]) -> str:
    """The method that the configuration names; empty where it names none."""
    stated = config.get(_SETTINGS[0])
    if not isinstance(stated, Mapping):
        return ""
    method = stated.get("quant_method")
    if method is None and any(str(key).startswith(("load_in_", "bnb_")) for key in stated):
        return "bitsandbytes"
    return str(method or "")


def _sign(folder: Path, config: Mapping[str, Any], entries: Mapping[str, Entry]) -> str | None:
    """A sign that weights are packed: a setting, a file or a tensor; None if there is none.

    Integer tensors that are not weights (positions, counters, masks) are no sign.
    """
    key = next((key for key in _SETTINGS if config.get(key)), None)
    if key:
        return f"{key} in config.json"
    file_name = next((name for name in _FILES if (folder / name).exists()), None)
    if file_name:
        return file_name
    for name, entry in entries.items():
        packed = _PACKED.search(name) or entry.dtype.lower().startswith(_FEW_BITS)
        if packed or (name.endswith(".weight") and entry.dtype in _WHOLE):
            return f"{name}, stored as {entry.dtype}"
    return None


def _left_over(method: str, entries: Mapping[str, Entry], used: set[str]) -> str | None:
    """A sign that a checkpoint is only half of what its method of quantisation stores."""
    for name, entry in entries.items():
        whole = method in _READERS and len(entry.shape) > 1 and entry.dtype in ("int8", "uint8")
        if whole and name not in used:
            return f"{name}, stored as {entry.dtype}"
    return None


def _plain_dtype(config: Mapping[str, Any]) -> DType:
    """The dtype that the configuration gives to weights, in which transformers unpacks them."""
    stated = (setting(config, key) for key in ("dtype", "torch_dtype"))
    return next((cast(DType, name) for name in stated if name in get_args(DType)), "bfloat16")


# FP8: a scale for each block of a matrix, beside it.


_LARGEST_FP4 = 6.0

_SCALES = {"weight": ("weight_scale_inv", "scale", "qscale_weight")}
"""Last part of a weight's name -> that of its scales; for others, the name and `_scale_inv`."""


_SCALE_DTYPES = ("float32", "bfloat16", "float16", "float8_e8m0fnu", "uint8")
"""Of scales; a byte is an exponent."""

_USUAL_BLOCK = (128, 128)
"""The rows and columns that share a scale where the configuration does not say."""


def _fp8(
    config: Mapping[str, Any], entries: Mapping[str, Entry], dtype: DType, named: str
) -> dict[str, tuple[Packed, Entry]]:
    blocks = _stated_block(config, named)
    found: dict[str, tuple[Packed, Entry]] = {}
    for name, entry in entries.items():
        in_half = entry.dtype == "int8"  # two numbers of four bits in a byte
        if not in_half and not entry.dtype.startswith("float8_e4m3"):
            continue
        parent, _, last = name.rpartition(".")
        endings = _SCALES.get(last, (f"{last}_scale_inv",))
        names = (f"{parent}.{ending}".removeprefix(".") for ending in endings)
        scale = next((key for key in names if key in entries), None)
        if scale is None or len(entry.shape) < 2:
            continue
        _check_dtype(scale, entries[scale], _SCALE_DTYPES, named)
        shape = (*entry.shape[:-1], 2 * entry.shape[-1]) if in_half else entry.shape
        grid = entries[scale].shape
        size = _block(shape, grid, blocks)
        if size is None or (in_half and size[1] % 2):
            raise SourceError(
                f"{named}: {scale} has shape {list(grid)}, which fits no blocks of "
                f"{name}, {list(shape)}; get the model again"
            )
        unpack = _Fp8(size=size, dtype=getattr(torch, dtype))
        sides = zip(shape[-2:], size, strict=True)
        largest = _LARGEST_FP4 if in_half else torch.finfo(torch.float8_e4m3fn).max
        cut = any(length % side for length, side in sides)
        packed = Packed(parts=(name, scale), unpack=unpack, largest=largest, cut=cut)
        found[name] = packed, _plain_entry(entry, shape, dtype)
    return found


def _stated_block(config: Mapping[str, Any], named: str) -> tuple[int, int] | None:
    """Rows and columns of a block by the configuration; None if a scale is for a whole matrix."""
    stated = config[_SETTINGS[0]].get("weight_block_size", _USUAL_BLOCK)
    if stated is None:
        return None
    sides = tuple(stated) if isinstance(stated, list | tuple) else ()
    if len(sides) != 2 or not all(type(side) is int and 0 < side <= _LONGEST for side in sides):
        raise SourceError(
            f"{named}: weight_block_size in config.json is {str(stated)[:60]}, not two whole "
            "numbers of 1 or more; get the file again"
        )
    return sides[0], sides[1]


_LONGEST = 2**31


def _block(
    shape: tuple[int, ...], grid: tuple[int, ...], stated: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Rows and columns of a block; the last ones may be cut off at the end of the matrix.

    The stated size counts if it makes so many blocks. Experts in FP4 have smaller ones.
    """
    if not math.prod(shape):
        return None
    if math.prod(grid) == 1 and len(grid) <= len(shape):
        return shape[-2], shape[-1]
    if len(grid) != len(shape) or grid[:-2] != shape[:-2]:
        return None
    sizes = []
    for length, count, given in zip(shape[-2:], grid[-2:], stated or (0, 0), strict=True):
        if count == 1:
            sizes.append(length)
        elif given and -(-length // given) == count:
            sizes.append(given)
        elif count and length % count == 0:
            sizes.append(length // count)
        else:
            return None
    return sizes[0], sizes[1]


def _check_dtype(name: str, entry: Entry, wanted: tuple[str, ...], named: str) -> None:
    if entry.dtype not in wanted:
        raise SourceError(
            f"{named}: {name} is stored as {entry.dtype}, not as {' or '.join(wanted)}; get the "
            "model again"
        )


@dataclass(frozen=True, kw_only=True)
class _Fp8:
    """Multiplies the blocks of a matrix by their scales, in float32.

    size: rows and columns of a block.
    """

    size: tuple[int, int]
    dtype: torch.dtype

    def __call__(self, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """weight: (..., rows, columns). scales: (..., rows and columns of blocks), or one."""
        # Imported where it is needed: it takes a second, and few models are packed.
        from transformers.integrations.finegrained_fp8 import Fp8Dequantize

        if scales.dim() < 2:
            scales = scales.reshape(1, 1)
        if scales.dtype != torch.uint8:  # a byte is an exponent, which transformers reads
            scales = scales.float()
        rows, columns = weight.shape[-2], weight.shape[-1] * (2 if self._in_half(weight) else 1)
        more = [count * length for count, length in zip(scales.shape[-2:], self.size, strict=True)]
        if (rows, columns) != tuple(more):
            weight = self._extended(weight, rows=more[0] - rows, columns=more[1] - columns)
        given = {"weight": weight, "weight_scale_inv": scales}
        [made] = Fp8Dequantize(None).convert(given).values()
        whole: torch.Tensor = made[..., :rows, :columns]
        return whole.to(self.dtype).contiguous()

    @staticmethod
    def _in_half(weight: torch.Tensor) -> bool:
        return weight.dtype == torch.int8

    def _extended(self, weight: torch.Tensor, *, rows: int, columns: int) -> torch.Tensor:
        """With zeros up to whole blocks."""
        stored = weight.view(torch.uint8)
        columns = columns // 2 if self._in_half(weight) else columns
        return torch.nn.functional.pad(stored, (0, columns, 0, rows)).view(weight.dtype)


# MXFP4: 32 numbers of four bits in the 16 bytes of a block, and an exponent for each block.


_BYTES = 16
"""Of a block."""


def _mxfp4(
    config: Mapping[str, Any], entries: Mapping[str, Entry], dtype: DType, named: str
) -> dict[str, tuple[Packed, Entry]]:
    found: dict[str, tuple[Packed, Entry]] = {}
    for name, entry in entries.items():
        scales = f"{name.removesuffix('_blocks')}_scales"
        if not name.endswith("_blocks") or scales not in entries:
            continue
        if len(entry.shape) != 4 or entries[scales].shape != entry.shape[:-1]:
            raise SourceError(
                f"{named}: {scales} has shape {list(entries[scales].shape)}, which does not fit "
                f"{name}, {list(entry.shape)}; get the model again"
            )
        for part in (name, scales):
            _check_dtype(part, entries[part], ("uint8",), named)
        experts, rows, blocks, bytes_each = entry.shape
        if bytes_each != _BYTES or not math.prod(entry.shape):
            raise SourceError(
                f"{named}: {name} has shape {list(entry.shape)}, which holds no blocks of {_BYTES} "
                "bytes; get the model again"
            )
        unpack = _Mxfp4(dtype=getattr(torch, dtype))
        plain = _plain_entry(entry, (experts, 2 * blocks * bytes_each, rows), dtype)
        packed = Packed(parts=(name, scales), unpack=unpack, largest=_LARGEST_FP4)
        found[name.removesuffix("_blocks")] = packed, plain
    return found


@dataclass(frozen=True, kw_only=True)
class _Mxfp4:
    """Unpacks the experts of a layer, as transformers does for gpt-oss."""

    dtype: torch.dtype

    def __call__(self, blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """blocks: (experts, rows, blocks, bytes). Returns (experts, columns, rows)."""
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        made: torch.Tensor = convert_moe_packed_tensors(blocks, scales, dtype=self.dtype)
        return made


def _plain_entry(entry: Entry, shape: tuple[int, ...], dtype: DType) -> Entry:
    size_bytes = math.prod(shape) * getattr(torch, dtype).itemsize
    return replace(entry, dtype=dtype, shape=shape, size_bytes=size_bytes)


_READERS = {"fp8": _fp8, "mxfp4": _mxfp4}
"""Method of quantisation -> how the weights that it packs are found."""

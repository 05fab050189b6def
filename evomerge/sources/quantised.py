"""Whether a checkpoint's weights are packed into codes of a few bits, which cannot be merged.

The configuration may say so, a file beside it, or the tensors alone: scales beside the weights, and
weights that are whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.sources.header import Entry

_SETTINGS = ("quantization_config", "compression_config", "quantization")
_FILES = (
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
    "quanto_qmap.json",
)
"""Beside the weights: GPTQ's and AWQ's of old, ModelOpt's, Quanto's."""

_PACKED = re.compile(
    r"\.(qweight|qzeros|g_idx|absmax|nested_absmax|quant_map|nested_quant_map|SCB|weight_packed|"
    r"weight_scale|weight_scale_inv|weight_scale_2|weight_zero_point|weight_shape|input_scale|"
    r"weight_format|quant_state\..*)$|_(blocks|scale_inv)$"
)
"""Endings of the names of what packed weights are unpacked with, and of some packed weights."""

_FEW_BITS = ("float8", "f8", "f6", "f4")
_WHOLE = ("uint8", "int8", "int16", "int32", "uint16", "uint32", "int64", "uint64", "bool")


def quantised_by(
    folder: Path, config: Mapping[str, Any], entries: Mapping[str, Entry]
) -> str | None:
    """What shows that the weights are quantised: a setting, a file or a tensor; None where none.

    Whole numbers that are no weights (positions, counters, masks) show nothing.
    """
    setting = next((key for key in _SETTINGS if config.get(key)), None)
    if setting:
        return f"{setting} in config.json"
    beside = next((name for name in _FILES if (folder / name).exists()), None)
    if beside:
        return beside
    for name, entry in entries.items():
        packed = _PACKED.search(name) or entry.dtype.lower().startswith(_FEW_BITS)
        if packed or (name.endswith(".weight") and entry.dtype in _WHOLE):
            return f"{name}, stored as {entry.dtype}"
    return None

"""Low-rank changes of tensors: their names in an adapter's file, and how they are applied."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.deferred import torch
from evomerge.errors import SourceError
from evomerge.sources.files import read_json
from evomerge.sources.source import Structure

# The configuration of a PEFT adapter: its kind, its base, how its matrices are scaled.


ADAPTER_CONFIG = "adapter_config.json"

_UNSUPPORTED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
"""Settings of PEFT's LoRA under which the change is not scale·B·A of whole modules."""

_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that moved a part of the base's weights away; that part is in no file."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """A LoRA adapter's settings.

    base: the model it was trained on, with @revision if it names one; None if it names no base.
    rank_of, alpha_of: by pattern of module names. fan_in_fan_out: whether its modules store (in,
    out).
    """

    base: str | None
    rank: int
    alpha: float
    rank_of: Mapping[str, int]
    alpha_of: Mapping[str, float]
    root_of_rank: bool
    fan_in_fan_out: bool

    def scale(self, module: str, *, stored_rank: int) -> float:
        """alpha/r for one module (Hu et al. 2021), alpha/√r for rsLoRA (Kalajdzievski 2023).

        Raises SourceError where the stored rank is not the stated one.
        """
        rank = self.rank_of.get(_pattern(self.rank_of, module), self.rank)
        alpha = self.alpha_of.get(_pattern(self.alpha_of, module), self.alpha)
        if rank != stored_rank:
            raise SourceError(
                f"{module} has rank {stored_rank}, and {ADAPTER_CONFIG} has {rank}; "
                "get both files from the same place"
            )
        return alpha / math.sqrt(rank) if self.root_of_rank else alpha / rank


def read_adapter_config(folder: Path, named: str) -> AdapterConfig:
    """The settings of the adapter in a folder. Raises SourceError if it cannot be merged."""
    document = read_json(folder / ADAPTER_CONFIG, named)
    kind = document.get("peft_type")
    if kind != "LORA":
        raise SourceError(
            f"{named}: is a PEFT adapter of type {kind}; only LORA is supported, so merge it into "
            "its base with PEFT first"
        )
    _check_settings(document, named)
    stated = document.get("base_model_name_or_path")
    base = stated if isinstance(stated, str) else None
    revision = document.get("revision")
    try:
        return AdapterConfig(
            base=f"{base}@{revision}" if base and revision else base or None,
            rank=_rank(document["r"]),
            alpha=_alpha(document["lora_alpha"]),
            rank_of={str(key): _rank(rank) for key, rank in _patterns(document, "rank_pattern")},
            alpha_of={str(key): _alpha(a) for key, a in _patterns(document, "alpha_pattern")},
            root_of_rank=bool(document.get("use_rslora")),
            fan_in_fan_out=bool(document.get("fan_in_fan_out")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, re.error) as error:
        raise SourceError(
            f"{named}: r, lora_alpha or a pattern of {ADAPTER_CONFIG} cannot be read; "
            "get the file again"
        ) from error


def _check_settings(document: Mapping[str, Any], named: str) -> None:
    unsupported = next((key for key in _UNSUPPORTED if document.get(key)), None)
    if unsupported is not None:
        raise SourceError(
            f"{named}: {unsupported} in {ADAPTER_CONFIG} is not supported; merge the adapter into "
            "its base with PEFT first"
        )
    start = str(document.get("init_lora_weights")).lower()
    if start.startswith(_CHANGES_BASE):
        raise SourceError(
            f"{named}: init_lora_weights: {start} changed the base's own weights; save the adapter "
            "again with PEFT's path_initial_model_for_weight_conversion"
        )


def _rank(stated: Any) -> int:
    rank = int(stated)
    if rank < 1:
        raise ValueError(f"{rank} is no rank")
    return rank


def _alpha(stated: Any) -> float:
    alpha = float(stated)
    if not abs(alpha) <= torch.finfo(torch.float32).max:
        raise ValueError(f"{alpha} is not finite in float32")
    return alpha


def _patterns(document: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    patterns = list((document.get(key) or {}).items())
    for pattern, _ in patterns:
        re.compile(pattern)
    return patterns


def _pattern(patterns: Mapping[str, object], module: str) -> str:
    """The first pattern that matches a module's name or the end of it, as in PEFT."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), module)


_PREFIX = "base_model.model."
_FACTORS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_embedding_A": "embedding_down",
    ".lora_embedding_B": "embedding_up",
    ".lora_magnitude_vector": "magnitude",
}


@dataclass(frozen=True)
class Parts:
    """The tensors in an adapter's file for one tensor of the base.

    factors: "down" (r, in) and "up" (out, r), or "embedding_down" (r, tokens) and "embedding_up"
    (width, r); "magnitude" (out,) for DoRA. replacement: the whole tensor, if it was trained as a
    whole.
    """

    factors: dict[str, torch.Tensor] = field(default_factory=dict)
    replacement: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the changed tensor, as most modules store it."""
        if self.replacement is not None:
            return tuple(self.replacement.shape)
        if "embedding_down" in self.factors and "embedding_up" in self.factors:
            return self.factors["embedding_down"].shape[1], self.factors["embedding_up"].shape[0]
        return self.factors["up"].shape[0], self.factors["down"].shape[1]


@dataclass(frozen=True, kw_only=True)
class Change:
    """How an adapter changes one tensor.

    W + scale·left·right, with left (rows, r) and right (r, columns). magnitude: one for each
    output; then each output is scaled to that norm (DoRA, Liu et al. 2024, equation 5). outputs:
    the dimension of the outputs. replacement: used as W instead of the base's tensor.
    """

    replacement: torch.Tensor | None = None
    left: torch.Tensor | None = None
    right: torch.Tensor | None = None
    scale: float = 0.0
    magnitude: torch.Tensor | None = None
    outputs: int = 0

    def apply(self, stored: torch.Tensor) -> torch.Tensor:
        """The changed tensor, float32, new memory."""
        changed = stored.to(torch.float32, copy=True)
        if self.left is not None and self.right is not None:
            changed.addmm_(self.left.float(), self.right.float(), alpha=self.scale)
        if self.magnitude is not None:
            norms = torch.linalg.vector_norm(changed, dim=1 - self.outputs, keepdim=True)
            changed.mul_(self.magnitude.float().reshape(norms.shape) / norms)
        return changed


def named_parts(tensors: Mapping[str, torch.Tensor]) -> dict[str, Parts]:
    """The adapter's name of each changed tensor -> the file's parts for it.

    Raises SourceError for a tensor of an unknown kind, or without its counterpart.
    """
    parts: dict[str, Parts] = {}
    for stored_name, tensor in tensors.items():
        name = stored_name.removeprefix(_PREFIX)
        ending = next((ending for ending in _FACTORS if name.endswith(ending)), None)
        if name == stored_name or (ending is None and ".lora_" in name):
            raise SourceError(
                f"{stored_name} is not a known part of a LoRA adapter; merge the adapter "
                "into its base with PEFT first"
            )
        if ending is None:
            whole = name.replace(".base_layer.", ".")
            parts[whole] = Parts(parts.get(whole, Parts()).factors, tensor)
            continue
        changed = f"{name.removesuffix(ending)}.weight"
        parts.setdefault(changed, Parts()).factors[_FACTORS[ending]] = tensor
    for name, part in parts.items():
        _check_factors(name, part.factors)
    return parts


def _check_factors(name: str, factors: Mapping[str, torch.Tensor]) -> None:
    if not factors:
        return
    kinds = set(factors)
    if "magnitude" in kinds and "embedding_down" in kinds:
        raise SourceError(f"{name}: DoRA of embeddings is not supported; merge it with PEFT first")
    if kinds - {"magnitude"} not in ({"down", "up"}, {"embedding_down", "embedding_up"}):
        raise SourceError(f"{name}: one of its two matrices is missing; get the adapter again")
    if any(factor.dim() != 2 for kind, factor in factors.items() if kind != "magnitude"):
        raise SourceError(
            f"{name}: LoRA of convolutions is not supported; merge it with PEFT first"
        )


def change_of(name: str, place: str, part: Parts, config: AdapterConfig, base: Structure) -> Change:
    """The change of one of the base's tensors.

    name: the adapter's name of the tensor; place: the base's. Raises SourceError where the adapter
    does not fit.
    """
    shape = base.shapes[place]
    if part.replacement is not None:
        _check_replacement(name, tuple(part.replacement.shape), shape)
        shape = tuple(part.replacement.shape)
    if not part.factors:
        return Change(replacement=part.replacement)
    module = name.removesuffix(".weight")
    if "embedding_down" in part.factors:
        down, up = part.factors["embedding_down"], part.factors["embedding_up"]
        transposed = True  # (tokens, width), where (out, in) would be (width, tokens)
    else:
        down, up = part.factors["down"], part.factors["up"]
        transposed = _is_transposed(place, up.shape[0], down.shape[1], config, base)
    made_shape = (down.shape[1], up.shape[0]) if transposed else (up.shape[0], down.shape[1])
    if made_shape != shape or up.shape[1] != down.shape[0]:
        raise SourceError(
            f"it changes {name} of shape {list(made_shape)}, and the base's is {list(shape)}; give "
            "the base that it was trained on"
        )
    return Change(
        replacement=part.replacement,
        left=down.T if transposed else up,
        right=up.T if transposed else down,
        scale=config.scale(module, stored_rank=down.shape[0]),
        magnitude=part.factors.get("magnitude"),
        outputs=1 if transposed else 0,
    )


def _check_replacement(name: str, shape: tuple[int, ...], before: tuple[int, ...]) -> None:
    """Refuse another shape, except a matrix with another number of rows (new tokens or classes)."""
    if shape != before and not (len(shape) == len(before) == 2 and shape[1:] == before[1:]):
        raise SourceError(
            f"it holds {name} of shape {list(shape)}, and the base's is {list(before)}; give the "
            "base that it was trained on"
        )


def _is_transposed(
    name: str, outputs: int, inputs: int, config: AdapterConfig, base: Structure
) -> bool:
    """Whether a module stores (in, out), like those of GPT-2, and not (out, in)."""
    if outputs != inputs:
        return base.shapes[name] == (inputs, outputs)
    # PEFT has one setting for all modules, but some may be of the other kind. A bias has one number
    # for each output, so the layer's other modules show it.
    stack = base.stack_of(name)
    for other, shape in base.shapes.items():
        bias = base.shapes.get(f"{other.removesuffix('.weight')}.bias")
        if len(shape) == 2 and shape[0] != shape[1] and bias is not None and len(bias) == 1:
            if stack is None or base.stack_of(other) is not stack:
                continue
            return bias[0] == shape[1]
    return config.fan_in_fan_out

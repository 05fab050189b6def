"""What a PEFT adapter says of itself: its kind, its base, how its matrices are scaled."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.errors import SourceError
from evomerge.sources.files import read_json

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
"""Initialisations that took a part of the base's weights away, which lies in no file."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """A LoRA adapter's settings.

    base: the model it was trained on, with @revision where it names one; None where it names none.
    rank_of, alpha_of: by pattern of module names. fan_in_fan_out: whether the modules it was made
    for store (in, out).
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

        Raises SourceError where the rank stored is not the one said.
        """
        rank = self.rank_of.get(_pattern(self.rank_of, module), self.rank)
        alpha = self.alpha_of.get(_pattern(self.alpha_of, module), self.alpha)
        if rank != stored_rank:
            raise SourceError(
                f"{module} is of rank {stored_rank}, and {ADAPTER_CONFIG} says {rank}; "
                "get both files from the same place"
            )
        return alpha / math.sqrt(rank) if self.root_of_rank else alpha / rank


def read_adapter_config(folder: Path, named: str) -> AdapterConfig:
    """The settings of the adapter in a folder. Raises SourceError for what cannot be merged."""
    document = read_json(folder / ADAPTER_CONFIG, named)
    kind = document.get("peft_type")
    if kind != "LORA":
        raise SourceError(
            f"{named}: is a PEFT adapter of type {kind}; only LORA is supported, so merge it into "
            "its base with PEFT first"
        )
    _check_settings(document, named)
    base = document.get("base_model_name_or_path")
    revision = document.get("revision")
    try:
        return AdapterConfig(
            base=f"{base}@{revision}" if base and revision else base or None,
            rank=int(document["r"]),
            alpha=float(document["lora_alpha"]),
            rank_of={str(key): int(rank) for key, rank in _patterns(document, "rank_pattern")},
            alpha_of={str(key): float(a) for key, a in _patterns(document, "alpha_pattern")},
            root_of_rank=bool(document.get("use_rslora")),
            fan_in_fan_out=bool(document.get("fan_in_fan_out")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise SourceError(
            f"{named}: r, lora_alpha or a pattern of {ADAPTER_CONFIG} cannot be read; "
            "get the file again"
        ) from error


def _check_settings(document: Mapping[str, Any], named: str) -> None:
    given = next((key for key in _UNSUPPORTED if document.get(key)), None)
    if given is not None:
        raise SourceError(
            f"{named}: {given} in {ADAPTER_CONFIG} is not supported; merge the adapter into its "
            "base with PEFT first"
        )
    start = str(document.get("init_lora_weights")).lower()
    if start.startswith(_CHANGES_BASE):
        raise SourceError(
            f"{named}: init_lora_weights: {start} changed the base's own weights; save the adapter "
            "again with PEFT's path_initial_model_for_weight_conversion"
        )


def _patterns(document: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    patterns = list((document.get(key) or {}).items())
    for pattern, _ in patterns:
        re.compile(pattern)
    return patterns


def _pattern(patterns: Mapping[str, object], module: str) -> str:
    """The first pattern that is a module's whole name or the end of it, as PEFT matches them."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), module)

"""The numbered stacks of a model, found from its config and the names of its tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from evomerge.errors import SourceError
from evomerge.sources.source import Stack

# Settings of the language model in a `config.json`, at the top or in a section.


SECTIONS = ("text_config", "llm_config", "language_config")
"""Sections in which multimodal models keep the language model's settings."""


def setting(config: Mapping[str, Any], key: str) -> Any:
    """A setting of the language model; None where the config does not have it."""
    for name in SECTIONS:
        section = config.get(name)
        if isinstance(section, Mapping) and section.get(key) is not None:
            return section[key]
    return config.get(key)


def with_setting(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The config with a setting of the language model changed everywhere it occurs."""
    changed = {**config, key: value} if key in config else dict(config)
    for name in SECTIONS:
        section = config.get(name)
        if isinstance(section, Mapping) and key in section:
            changed[name] = {**section, key: value}
    return changed


def vocabulary_size(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Rows of the embeddings: `vocab_size`, else the most rows of any matrix."""
    stated = setting(config, "vocab_size")
    if isinstance(stated, int):
        return stated
    return max((shape[0] for shape in shapes.values() if len(shape) == 2), default=0)


def context_tokens(config: Mapping[str, Any]) -> int:
    """The longest sequence that a model reads; without a limit if its config gives none."""
    stated = (setting(config, key) for key in ("max_position_embeddings", "n_positions"))
    return next((limit for limit in stated if isinstance(limit, int)), sys.maxsize)


DEPTH_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
    "num_hidden_groups",  # layers that share weights are stored once for each group
    "num_layers_per_stack",  # layers of a loop, whose passes num_hidden_layers counts
)
WIDTH_KEYS = ("hidden_size", "d_model", "n_embd", "dim")
DRAFT_KEY = "num_nextn_predict_layers"
"""Layers that predict further tokens; stored after the model's own and seldom loaded."""


def split_at_number(tensor_name: str) -> tuple[str, int, str] | None:
    """(part before the first number in a dotted name, the number, part after it)."""
    parts = tensor_name.split(".")
    for place, part in enumerate(parts[:-1]):
        if part.isdecimal():
            prefix = "".join(f"{before}." for before in parts[:place])
            return prefix, int(part), ".".join(parts[place + 1 :])
    return None


def find_stacks(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    named: str,
) -> tuple[Stack, ...]:
    """Every stack, the main one first: the language model's; of two, the larger in bytes.

    A stack is a set of tensors numbered from 0 without gaps, where each number is a module of
    modules. Experts within a layer and lists of plain matrices are no stacks. Where the config has
    the depth of the language model (or of encoder and decoder), the main stack has that depth, and
    if possible also its width; a vision tower is another stack. Raises SourceError where there is
    no stack.
    """
    runs = _runs(shapes)
    stated_depths = {depth for key in DEPTH_KEYS if isinstance(depth := setting(config, key), int)}
    drafts = setting(config, DRAFT_KEY) or 0
    stacks: dict[str, Stack] = {}
    for prefix, numbers in runs.items():
        count = len(numbers)
        if numbers != set(range(count)):
            continue
        depth = count - drafts if count - drafts in stated_depths else count
        if depth in stated_depths or depth > 1:
            stacks[prefix] = Stack(prefix, depth)
    fitting = [
        stack for stack in stacks.values() if not stated_depths or stack.depth in stated_depths
    ]
    if not fitting:
        wanted = " or ".join(str(depth) for depth in sorted(stated_depths))
        raise SourceError(
            f"{named}: no {wanted} numbered layers among its tensors as config.json says; "
            "get the weights and the config from the same place"
        )
    weights = {prefix: _bytes_under(prefix, sizes) for prefix in stacks}
    wide = [stack for stack in fitting if _has_width(stack, shapes, config)]
    main = max(
        sorted(wide or fitting, key=lambda stack: stack.prefix),
        key=lambda stack: weights[stack.prefix],
    )
    others = (stack for stack in stacks.values() if stack != main)
    return main, *sorted(others, key=lambda stack: (-weights[stack.prefix], stack.prefix))


def _runs(names: Iterable[str]) -> dict[str, set[int]]:
    """Prefix -> the numbers that follow it, for modules of modules."""
    numbers: dict[str, set[int]] = {}
    nested: set[str] = set()
    for name in names:
        split = split_at_number(name)
        if split is not None:
            prefix, number, rest = split
            numbers.setdefault(prefix, set()).add(number)
            if "." in rest:
                nested.add(prefix)
    return {prefix: found for prefix, found in numbers.items() if prefix in nested}


def _bytes_under(prefix: str, sizes: Mapping[str, int]) -> int:
    return sum(size for name, size in sizes.items() if name.startswith(prefix))


def _has_width(
    stack: Stack, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> bool:
    widths = {(setting(config, key),) for key in WIDTH_KEYS}  # of a norm's gains
    return any(
        shape in widths for name, shape in shapes.items() if stack.layer_of(name) is not None
    )

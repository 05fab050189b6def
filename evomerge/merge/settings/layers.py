"""Settings of a configuration that depend on its layers, corrected for layers in another order.

These are depths, lists with one entry for each layer (`layer_types`), lists of layer numbers
(`mlp_only_layers`), and counts that imply such lists. Settings that transformers would derive from
the number of a layer are written out, because a layer keeps its settings when it moves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.errors import RecipeError
from evomerge.merge.plan.modules import is_vision
from evomerge.merge.plan.pieces import Layer
from evomerge.sources import Source, Stack

Config = dict[str, Any]

_DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth")
_ENCODER_KEYS = ("num_layers", "encoder_layers", "num_encoder_layers", "num_hidden_layers")
_DECODER_KEYS = ("num_decoder_layers", "decoder_layers")
_SECTIONS = {False: ("text_config", "llm_config", "language_config"), True: ("vision_config",)}
"""Whether a stack is a vision tower -> where its settings may be nested."""

_NUMBER_LISTS = frozenset(
    {
        "mlp_only_layers",
        "moe_layers",
        "attn_layer_indices",
        "full_attn_idxs",
        "hybrid_layer_ids",
        "cross_attention_layers",
        "fullatt_block_indexes",
    }
)
"""Lists of the numbers of all layers of a kind."""

_DENSE_FIRST = "first_k_dense_replace"
"""How many of the first layers have no experts."""

_OVERRIDES = "per_layer_config"
"""Number of a layer, as text -> the settings in which it differs from the other layers."""

_NOT_BY_LAYER = re.compile(r"architectures|token|multiplier|limit|pinpoints|feature|_size|dims?$")
"""Lists that are as long as the model is deep only by chance."""


def with_layers(
    config: Config,
    layers: Mapping[str, Sequence[Layer]],
    lead: Source,
    sources: Mapping[str, Source],
) -> Config:
    """The lead's configuration for stacks whose layers come from elsewhere.

    layers: prefix of a stack -> where each layer of the result comes from. Raises RecipeError where
    a configuration cannot describe the result.
    """
    for stack in lead.structure.stacks:
        if stack.prefix in layers:
            config = _with_stack(config, stack, layers[stack.prefix], lead, sources)
    return config


def stack_settings(
    config: Mapping[str, Any],
    stack: Stack,
    layers: Sequence[Layer],
    lead: Source,
    sources: Mapping[str, Source],
) -> Config:
    """The settings of one stack in `config` that change when its layers come from elsewhere.

    config: the lead's. The keys are always the same for the same models. Raises RecipeError as
    `with_layers` does.
    """
    nested = _section_name(config, stack)
    section = config[nested] if nested else config
    changed: Config = dict(_depths(section, stack, len(layers), lead))
    used = dict.fromkeys(layer.reference for layer in layers)
    settings = {name: _settings_by_layer(sources[name], stack) for name in used}
    for key in dict.fromkeys(key for found in settings.values() for key in found):
        changed |= _written(key, [_value(key, layer, settings) for layer in layers])
    if section.get("decoder_sparse_step", 1) > 1:
        changed["decoder_sparse_step"] = 1  # mlp_only_layers lists them now
    if "attention_types" in section and "attention_layers" in changed:
        changed["attention_types"] = [[changed["attention_layers"], 1]]  # GPT-Neo has both
    return changed


def _with_stack(
    config: Config,
    stack: Stack,
    layers: Sequence[Layer],
    lead: Source,
    sources: Mapping[str, Source],
) -> Config:
    nested = _section_name(config, stack)
    changed = stack_settings(config, stack, layers, lead, sources)
    if nested is None:
        return {**config, **changed}
    # Old vision-language configurations have the language model's depth at the top too.
    outer = {key: len(layers) for key in _DEPTH_KEYS if config.get(key) == stack.depth}
    section = {**config[nested], **changed}
    return {**config, **({} if is_vision(stack) else outer), nested: section}


def _section_name(config: Mapping[str, Any], stack: Stack) -> str | None:
    names = _SECTIONS[is_vision(stack)]
    return next((name for name in names if isinstance(config.get(name), Mapping)), None)


def _depths(
    section: Mapping[str, Any], stack: Stack, depth: int, lead: Source
) -> Mapping[str, int]:
    """The new depth, under every key for the depth of the stack; at least one key."""
    parts = {
        part: each_stack
        for each_stack in lead.structure.stacks
        for part in each_stack.prefix.split(".")
    }
    if not {"encoder", "decoder"} <= parts.keys():
        keys = [key for key in _DEPTH_KEYS if key in section] or ["num_hidden_layers"]
        return dict.fromkeys(keys, depth)
    decoding = [key for key in _DECODER_KEYS if key in section]
    if "decoder" in stack.prefix.split("."):
        return dict.fromkeys(decoding or _DECODER_KEYS[:1], depth)
    # A T5 without a depth for its decoder uses the encoder's, which changes here.
    decoder_depth = {} if decoding else {_DECODER_KEYS[0]: parts["decoder"].depth}
    return {**decoder_depth, **{key: depth for key in _ENCODER_KEYS if key in section}}


def _settings_by_layer(source: Source, stack: Stack) -> dict[str, list[Any]]:
    """Key -> the setting of each layer in the source's stack; true or false in number lists."""
    own = next(
        (found for found in source.structure.stacks if found.prefix == stack.prefix),
        source.structure.stacks[0],
    )
    nested = _section_name(source.config, own)
    section = _with_derived_lists(source.config[nested] if nested else source.config)
    numbers = range(own.depth)
    found: dict[str, list[Any]] = {}
    overrides = section.get(_OVERRIDES)
    if isinstance(overrides, Mapping):
        found[_OVERRIDES] = [overrides.get(str(number), {}) for number in numbers]
    for key, value in section.items():
        if not isinstance(value, list):
            continue
        if key in _NUMBER_LISTS:
            found[key] = [number in value for number in numbers]
        elif len(value) == own.depth and not _NOT_BY_LAYER.search(key):
            found[key] = value
    dense = section.get(_DENSE_FIRST)
    if isinstance(dense, int):
        found[_DENSE_FIRST] = [number < dense for number in numbers]
    step = section.get("decoder_sparse_step") or 1
    if step > 1:
        only = section.get("mlp_only_layers") or []
        found["mlp_only_layers"] = [(n in only) or (n + 1) % step != 0 for n in numbers]
    return found


def _with_derived_lists(section: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those by layer that transformers derives where they are not written."""
    from transformers import AutoConfig

    written = {key: value for key, value in section.items() if value is not None}
    fields = {key: value for key, value in written.items() if key != "model_type"}
    try:
        derived = AutoConfig.for_model(str(written.get("model_type")), **fields).to_dict()
    except Exception:  # an architecture with its own code: only its written settings are known
        return written
    by_layer = {
        key: value for key, value in derived.items() if isinstance(value, list) or key == _OVERRIDES
    }
    return {**by_layer, **written}


def _value(key: str, layer: Layer, settings: Mapping[str, Mapping[str, list[Any]]]) -> Any:
    values = settings[layer.reference].get(key)
    if values is None:
        other = next(name for name, found in settings.items() if key in found)
        raise RecipeError(
            f"slices: {layer.reference} has no {key} in its config.json and {other} has; "
            "take the layers from models of one architecture"
        )
    return values[layer.number]


def _written(key: str, values: Sequence[Any]) -> Config:
    """The setting of every layer as the configuration writes it."""
    if key in _NUMBER_LISTS:
        return {key: [number for number, value in enumerate(values) if value]}
    if key == _DENSE_FIRST:
        count = sum(values)
        if not all(values[:count]):
            raise RecipeError(
                f"slices: config.json has {key}, so layers without experts can only come first; "
                "put them first"
            )
        return {key: count}
    if key == _OVERRIDES:
        return {key: {str(number): value for number, value in enumerate(values) if value}}
    return {key: list(values)}

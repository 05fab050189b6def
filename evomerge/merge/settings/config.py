"""The configuration of a merged model: the leading model's, with the settings the merge changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evomerge.errors import RecipeError
from evomerge.merge.plan.pieces import Layer
from evomerge.merge.plan.plan import Plan
from evomerge.merge.plan.slices import modules_of_the_first
from evomerge.merge.settings.layers import with_layers
from evomerge.recipe import Recipe
from evomerge.sources import (
    MetaModel,
    Source,
    Stack,
    UnbuildableModelError,
    UnknownModelError,
    meta_model,
    short,
    split_at_number,
)

if TYPE_CHECKING:
    import torch

# Checks that every layer of a rebuilt stack keeps the kind that it has in its own model.
#
# A configuration may give the kinds of layers by a rule: every eighth layer has attention, the
# first three have no experts. Such a rule goes wrong when layers move. So each layer is built with
# transformers' own classes from the old configuration and from the new one, without memory, and the
# two are compared.


_OF_THE_PLACE = re.compile(
    r"^_|idx|index|layer_id|layer_number|layers$|^training$|^name|^store_full_length_kv$"
)
"""Settings of a module that only say its position, or that have no effect."""

_BY_NUMBER = ("scale_attn_by_inverse_layer_idx",)
"""Settings that make a layer compute differently at another position, though it is built alike."""

_RULE = re.compile(
    r"layer_(period|offset)|interval|(start|end)_index|pattern|first_k|block_types|sparse_step"
    r"|scale_attn_by"
)
"""Names of settings that give layers their kind by number."""

_Kind = tuple[object, ...]


def check_kinds(
    config: Mapping[str, Any],
    layers: Mapping[str, Sequence[Layer]],
    lead: Source,
    sources: Mapping[str, Source],
) -> None:
    """Compare every layer of the result with the layer that it comes from.

    config: of the result. layers: prefix of a stack -> where each layer comes from. Raises
    RecipeError for the first layer of another kind. Models that transformers does not know are not
    checked.
    """
    try:
        merged_model = meta_model(config)
        models = {name: meta_model(sources[name].config) for name in _used(layers)}
    except UnknownModelError:
        return
    except UnbuildableModelError as error:
        raise RecipeError(
            "slices: config.json cannot describe the layers in this order "
            f"({short(error)}); keep the order of the model's own layers"
        ) from error
    for prefix, rebuilt in layers.items():
        stack = next(stack for stack in lead.structure.stacks if stack.prefix == prefix)
        kinds: dict[Layer, _Kind | None] = {}
        if len(models) > 1:
            _refuse_shared(merged_model, lead, stack)
        for number, layer in enumerate(rebuilt):
            if layer not in kinds:
                source = sources[layer.reference]
                kinds[layer] = _kind(
                    models[layer.reference], source, _like(stack, source), layer.number
                )
            new_kind = _kind(merged_model, lead, stack, number)
            if new_kind != kinds[layer] or _by_number(config, layer.number != number):
                raise RecipeError(
                    f"slices: layer {number} of the result is layer {layer.number} of "
                    f"{layer.reference}, and config.json gives layers their kind by a "
                    f"rule{_rules(config)}, so it would be of another kind there; keep layers "
                    "where their kind is"
                )


def _refuse_shared(model: MetaModel, lead: Source, stack: Stack) -> None:
    """Refuse layers of several models where layers share weights: those of one model would win."""
    first = next((name for name in lead.structure.shapes if stack.layer_of(name) == 0), None)
    place = None if first is None else split_at_number(model.rename(first).name)
    for second, shared in model.tied.items():
        if place is not None and second.startswith(place[0]) and shared.startswith(place[0]):
            raise RecipeError(
                f"slices: layers of {lead.reference} share weights ({shared}), so those of several "
                "models cannot stand together; take all layers from one model"
            )


def _used(layers: Mapping[str, Sequence[Layer]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer.reference for rebuilt in layers.values() for layer in rebuilt))


def _like(stack: Stack, source: Source) -> Stack:
    """The source's stack with the same prefix, else its main stack."""
    stacks = source.structure.stacks
    return next((found for found in stacks if found.prefix == stack.prefix), stacks[0])


def _by_number(config: Mapping[str, Any], moved: bool) -> bool:
    return moved and any(config.get(key) for key in _BY_NUMBER)


def _rules(config: Mapping[str, Any]) -> str:
    """The settings that look like rules for kinds of layers, in brackets."""
    found = [key for key, value in config.items() if value and _RULE.search(key)]
    return f" ({', '.join(found)})" if found else ""


def _kind(model: MetaModel, source: Source, stack: Stack, number: int) -> _Kind | None:
    """What a layer is built of: classes, shapes and settings; None where it is not found."""
    first = next((name for name in source.structure.shapes if stack.layer_of(name) == 0), None)
    place = None if first is None else split_at_number(model.rename(first).name)
    if place is None:
        return None
    try:
        module = model.module.get_submodule(f"{place[0]}{number}")
    except AttributeError:
        return None
    first_only = modules_of_the_first(source.structure, stack)
    return tuple(
        (name, type(submodule).__name__, _shapes_of(submodule), _settings_of(submodule, first_only))
        for name, submodule in module.named_modules()
        if name not in first_only
    )


def _shapes_of(module: torch.nn.Module) -> tuple[object, ...]:
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return tuple((name, tuple(tensor.shape)) for name, tensor in own)


def _settings_of(module: torch.nn.Module, first_only: frozenset[str]) -> tuple[object, ...]:
    """A module's plain settings, without its position and modules that only the first layer has."""
    owned = [name.rpartition(".")[2] for name in first_only]
    return tuple(
        (key, value)
        for key, value in sorted(vars(module).items())
        if isinstance(value, bool | int | float | str | None)
        and not _OF_THE_PLACE.search(key)
        and not any(name in key for name in owned)
    )


def merged_config(recipe: Recipe, plan: Plan, sources: Mapping[str, Source]) -> dict[str, Any]:
    """The merged model's config.json. In a merge of slices, each layer keeps its own settings.

    plan: of the recipe over these sources, by reference. Raises RecipeError where a configuration
    cannot describe the new order of layers.
    """
    lead = sources[plan.lead]
    config = dict(lead.config)
    # Old transformers wrote the path that a model was loaded from, on someone's machine.
    config.pop("_name_or_path", None)
    dtype = recipe.out_dtype or lead.structure.dtype
    config = {**_with_dtype(config, dtype), "dtype": dtype}
    for key, nested in config.items():
        if key.endswith("_config") and isinstance(nested, Mapping):
            config[key] = _with_dtype(nested, dtype)
    if not plan.layers:
        return config
    config = with_layers(config, plan.layers, lead, sources)
    check_kinds(config, plan.layers, lead, sources)
    return config


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The config with the new storage dtype, under its keys of old and new transformers."""
    dtypes = {key: dtype for key in ("dtype", "torch_dtype") if key in config}
    return {**config, **dtypes}

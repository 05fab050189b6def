"""Loads the layers of further models for the routes of a live model.

They are built with the first model's configuration, because a route runs inside that model. A layer
keeps only the settings that its own model has for each layer. Embeddings, norms and heads of
further models are never read and get no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from evomerge.errors import RecipeError, SourceError
from evomerge.evaluate.engines.weight_loader import WeightLoader
from evomerge.merge import Layer, stack_settings, with_layers
from evomerge.route import Hop
from evomerge.sources import Source, is_part, split_at_number

# Which models' layers can be moved: those that compute the same under any number.
#
# A factor, a kind or a shape of a layer may depend on its number, and a layer may share what it
# computes with other layers. To find that, a model is compared with one that has moved layers.


_KNOWN = {
    "scale_attn_by_inverse_layer_idx": "attention is scaled by the number of the layer",
    "num_kv_shared_layers": "layers read the keys and values of others",
}
"""Settings that, if they are set, tie layers to their places."""

_NO_FACTS = ("layer_idx", "training", "store_full_length_kv")
"""A layer's place in the cache, of which every hop gets its own, and what has no effect here: no
layer is shared, see `_KNOWN`."""

_NO_FACT_OF_TEXT_MODELS = "model.first_kv_shared_layer_idx"
"""The depth of a Gemma 4 without shared layers. One that sees keeps more by the layer's number."""


def check_settings(model: PreTrainedModel, *, named: str) -> None:
    """Raise SourceError, in one line, for settings that are known to tie layers to their places.

    named: the model, for the message.
    """
    config = model.config.get_text_config(decoder=True)
    for key, reason in _KNOWN.items():
        value = getattr(config, key, None)
        if value:
            raise _fixed(named, f"config.json says {key}: {value} ({reason})")


def check_unshared(model: PreTrainedModel, *, stack: str, named: str) -> None:
    """Raise SourceError, in one line, for layers that share weights with each other.

    stack: name of the list of layers. named: the model, for the message.
    """
    for second, first in model.all_tied_weights_keys.items():
        if second.startswith(f"{stack}.") and first.startswith(f"{stack}."):
            raise _fixed(named, f"layers share weights ({first})")


def check_moved(
    model: PreTrainedModel,
    moved: PreTrainedModel,
    *,
    stack: str,
    origins: Sequence[int],
    named: str,
) -> None:
    """Raise SourceError, in one line, for anything that changes when layers move.

    moved: the model with layer `origins[i]` as layer i; parameters are not read. stack: name of the
    list of layers in both. named: the model, for the message.
    """
    layers, moved_layers = (root.get_submodule(stack) for root in (model, moved))
    assert isinstance(layers, nn.ModuleList) and isinstance(moved_layers, nn.ModuleList)
    for place, origin in enumerate(origins):
        differs = _difference(_facts(layers[origin]), _facts(moved_layers[place]))
        if differs:
            raise _fixed(named, f"{differs} of a layer depends on its number")
    differs = _difference(_facts(model, but=f"{stack}."), _facts(moved, but=f"{stack}."))
    if differs:
        raise _fixed(named, f"{differs}, outside the layers, depends on the number of layers")


def _fixed(named: str, reason: str) -> SourceError:
    return SourceError(
        f"{named}: {reason}, so routes cannot move its layers; search a space of parameters instead"
    )


def _difference(facts: dict[str, object], others: dict[str, object]) -> str | None:
    return next((name for name in {**facts, **others} if facts.get(name) != others.get(name)), None)


def _facts(module: nn.Module, *, but: str = "\0") -> dict[str, object]:
    """Plain attributes, and shapes of parameters and buffers, by name.

    but: prefix of the modules to leave out.
    """
    facts: dict[str, object] = {}
    for prefix, part in module.named_modules():
        path = f"{prefix}." if prefix else ""
        if path.startswith(but):
            continue
        for name, value in vars(part).items():
            plain = isinstance(value, (bool, int, float, str, tuple, type(None)))
            left_out = name in _NO_FACTS or path + name == _NO_FACT_OF_TEXT_MODELS
            if plain and not left_out and not name.startswith("_"):
                facts[path + name] = value
        tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        facts.update((path + name, tuple(tensor.shape)) for name, tensor in tensors)
    return facts


class Build(Protocol):
    """Builds a model of the first model's class, see `live_model.build_model`."""

    def __call__(
        self, *, config: Mapping[str, Any], device: torch.device, only: str = ""
    ) -> PreTrainedModel:
        """A model of this configuration with memory on `device` for one module of it."""


class RoutedLayers:
    """Loads the layers that routes use, once for each model.

    first: the source of the live `model`. loader: of that model. list_name: name of the list of
    layers in the model. Raises SourceError if the layers cannot be moved.
    """

    def __init__(
        self,
        first: Source,
        model: PreTrainedModel,
        loader: WeightLoader,
        *,
        build: Build,
        device: torch.device,
    ) -> None:
        self._first = first
        self._stack = first.structure.stacks[0]
        self._sources: dict[str, Source] = {first.reference: first}
        self._build = build
        self._device = device
        self._kinds = _kinds(model)
        self.list_name = self._find_list(loader)
        self.own = _children(model, self.list_name)
        self._check_that_layers_move(model)

    def settings_of(self, hops: Sequence[Hop]) -> Mapping[str, object]:
        """The settings in the language model's configuration for these layers."""
        layers = [Layer(hop.model, hop.layer) for hop in hops]
        return stack_settings(self._first.config, self._stack, layers, self._first, self._sources)

    def load(self, name: str, source: Source) -> Sequence[nn.Module]:
        """The layers of the model that routes call `name`. Raises RecipeError, SourceError."""
        if source.reference == self._first.reference:
            self._sources[name] = source
            return self.own
        self._refuse_other_architecture(name, source)
        layers = [Layer(name, number) for number in range(source.structure.depth)]
        config = self._config_of(layers, {**self._sources, name: source})
        model = self._build(config=config, device=self._device, only=self.list_name)
        self._refuse_other_kinds(name, model)
        try:
            WeightLoader(model).fill(self._tensors_of(source), within=f"{self.list_name}.")
        except SourceError as error:
            raise SourceError(f"{name}: {error}") from error
        self._sources[name] = source
        return _children(model, self.list_name)

    def _tensors_of(self, source: Source) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of a model's layers, by the names that the first model has for them."""
        stack = source.structure.stacks[0]
        for name in source.structure.shapes:
            if stack.layer_of(name) is not None:
                yield self._stack.prefix + name[len(stack.prefix) :], source.tensor(name)

    def _config_of(
        self, layers: Sequence[Layer], sources: Mapping[str, Source]
    ) -> Mapping[str, Any]:
        return with_layers(
            dict(self._first.config), {self._stack.prefix: layers}, self._first, sources
        )

    def _find_list(self, loader: WeightLoader) -> str:
        """Name of the list of layers in the live model; checkpoints may have an older name."""
        inner = (
            name for name in self._first.structure.shapes if self._stack.layer_of(name) is not None
        )
        owner = next(found for name in inner if (found := loader.owner(name)) is not None)
        split = split_at_number(owner)
        assert split is not None, owner
        return split[0].rstrip(".")

    def _check_that_layers_move(self, model: PreTrainedModel) -> None:
        """Compare with a model of every layer twice, where all but the first get other numbers."""
        check_settings(model, named=self._first.reference)
        check_unshared(model, stack=self.list_name, named=self._first.reference)
        origins = [number for number in range(self._stack.depth) for _ in range(2)]
        layers = [Layer(self._first.reference, number) for number in origins]
        moved = self._build(
            config=self._config_of(layers, self._sources), device=torch.device("meta")
        )
        check_moved(
            model, moved, stack=self.list_name, origins=origins, named=self._first.reference
        )

    def _refuse_other_architecture(self, name: str, source: Source) -> None:
        ours, theirs = self._first.structure, source.structure
        if theirs.architecture != ours.architecture and not is_part(theirs, ours):
            raise RecipeError(
                f"route: {name} is a {theirs.architecture} and {self._first.reference} a "
                f"{ours.architecture}; take the layers from models of one architecture"
            )

    def _refuse_other_kinds(self, name: str, model: PreTrainedModel) -> None:
        """Refuse kinds of layers that the first model, which is around them, does not have."""
        unknown = sorted(_kinds(model) - self._kinds)
        if unknown:
            raise RecipeError(
                f"route: {name} has layers of {unknown[0]} and {self._first.reference} has none; "
                "take the layers from models that are built alike"
            )


def _kinds(model: PreTrainedModel) -> frozenset[str]:
    config = model.config.get_text_config(decoder=True)
    return frozenset(getattr(config, "layer_types", None) or ())


def _children(model: PreTrainedModel, name: str) -> tuple[nn.Module, ...]:
    return tuple(model.get_submodule(name).children())

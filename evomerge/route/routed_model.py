"""A live model with the layers of a route, without a copy of any weight.

Every hop is a twin of a layer: its own modules over the parameters of the layer. So the same layer
may come twice, each time with its own place in the cache and its own scale. Embeddings, final norm
and head come from one model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.configuration_utils import remap_legacy_layer_types

from evomerge.route.route import Hop

Settings = Callable[[Sequence[Hop]], Mapping[str, object]]
"""Hops -> the settings of these layers in the configuration of their language model."""

Watcher = Callable[[torch.Tensor], None]
"""Called with the hidden states (rows, length, hidden) before a hop; must not write to them."""

_PreHook = Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]


class RoutedModel:
    """One live model that gets new layers for every route.

    model: gives the parts around the layers. stack: name of its list of layers. settings: must give
    the same keys for all hops, because only these are written.
    """

    def __init__(self, model: PreTrainedModel, *, stack: str, settings: Settings) -> None:
        owner, _, self._name = stack.rpartition(".")
        self._owner: nn.Module = model.get_submodule(owner)
        # The forward pass reads the first, a cache is made from the second; mostly they are the
        # same.
        configs = (self._owner.config, model.config.get_text_config(decoder=True))
        self._configs = list({id(config): config for config in configs}.values())
        self._settings = settings
        self._layers: dict[str, Sequence[nn.Module]] = {}
        self._hops: tuple[Hop, ...] = ()
        self._twins: list[nn.Module] = []
        self._settings_from: dict[int, Mapping[str, object]] = {}  # first hop of a pass -> settings

    def add(self, reference: str, layers: Iterable[nn.Module]) -> None:
        """Allow a model on routes. layers: built like those of the live model."""
        self._layers[reference] = tuple(layers)

    def __contains__(self, reference: str) -> bool:
        """Whether a model is allowed on routes."""
        return reference in self._layers

    def follow(self, hops: Sequence[Hop]) -> None:
        """Make these hops, at least one, the layers of the live model. Allocates no parameter."""
        settings = self._settings(hops)
        self._hops, self._settings_from = tuple(hops), {0: settings}
        self._twins = [self._twin(hop, slot) for slot, hop in enumerate(hops)]
        self._begin_at(0)

    @contextmanager
    def passing(
        self, start: int, states: torch.Tensor | None, watchers: Mapping[int, Watcher]
    ) -> Iterator[None]:
        """Inside this context, passes without a cache begin at hop `start`, which reads `states`.

        states: (rows, length, hidden) before that hop's scale; None where start is 0. watchers: by
        hop; each is called with the hop's input before its scale.
        """
        hooks = [(hop, _telling(watcher)) for hop, watcher in watchers.items()]
        if states is not None:
            hooks.append((start, _replacing(states)))
        handles = [
            self._twins[hop].register_forward_pre_hook(hook, prepend=True) for hop, hook in hooks
        ]
        try:
            if start:
                self._begin_at(start)
            yield
        finally:
            for handle in handles:
                handle.remove()
            if start:
                self._begin_at(0)

    def _begin_at(self, start: int) -> None:
        if start not in self._settings_from:
            self._settings_from[start] = self._settings(self._hops[start:])
        setattr(self._owner, self._name, nn.ModuleList(self._twins[start:]))
        for config in self._configs:
            for key, value in self._settings_from[start].items():
                setattr(config, key, value)
            remap_legacy_layer_types(config=config)

    def _twin(self, hop: Hop, slot: int) -> nn.Module:
        layer = self._layers[hop.model][hop.layer]
        twin = _moved(layer, slot, {})
        if twin is layer:
            twin = _copied(layer)
        for key, value in vars(twin).items():
            if "_hooks" in key:
                vars(twin)[key] = value.copy()
        if hop.scale != 1.0:
            twin.register_forward_pre_hook(_scaling(hop.scale))
        return twin


def _moved(module: nn.Module, slot: int, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module for a place in the cache: a copy that shares all but the number of the place.

    The module itself if it and its parts have no such number. made: module -> its copy so far.
    """
    if module not in made:
        parts = {name: _moved(part, slot, made) for name, part in module.named_children()}
        numbered = "layer_idx" in vars(module)
        if numbered or any(part is not module._modules[name] for name, part in parts.items()):
            made[module] = _copied(module)
            vars(made[module]).update(_modules={**module._modules, **parts})
            if numbered:
                vars(made[module]).update(layer_idx=slot)
        else:
            made[module] = module
    return made[module]


def _copied(module: nn.Module) -> nn.Module:
    """Another module with the same attributes, parameters and parts."""
    twin = type(module).__new__(type(module))
    vars(twin).update(vars(module))
    return twin


def _scaling(scale: float) -> _PreHook:
    return lambda _, inputs: (inputs[0] * scale, *inputs[1:])


def _replacing(states: torch.Tensor) -> _PreHook:
    # Pass a copy, because some layers change their input in place.
    return lambda _, inputs: (states.clone(), *inputs[1:])


def _telling(watcher: Watcher) -> _PreHook:
    def tell(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        watcher(inputs[0])

    return tell

"""A live model whose layers are those of a route, without a copy of any weight.

Every hop is a twin of a layer: modules of its own over the layer's own parameters, so that the same
layer may come twice, each time with its own place in the cache and its own scale. Embeddings, final
norm and head are those of one model.
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
"""Hops -> what the configuration of a language model of these layers says of them."""

Watcher = Callable[[torch.Tensor], None]
"""Told the hidden states (rows, length, hidden) before a hop; not to be written to."""

_PreHook = Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]


class RoutedModel:
    """The layers of one live model, put together anew for every route.

    model: what is around the layers. stack: name of its list of layers. settings: must say the same
    keys for any hops, as only those are written.
    """

    def __init__(self, model: PreTrainedModel, *, stack: str, settings: Settings) -> None:
        owner, _, self._name = stack.rpartition(".")
        self._owner: nn.Module = model.get_submodule(owner)
        # The forward pass reads the one, a cache is made from the other; mostly they are the same.
        configs = (self._owner.config, model.config.get_text_config(decoder=True))
        self._configs = list({id(config): config for config in configs}.values())
        self._settings = settings
        self._layers: dict[str, Sequence[nn.Module]] = {}
        self._hops: tuple[Hop, ...] = ()
        self._twins: list[nn.Module] = []
        self._said: dict[int, Mapping[str, object]] = {}  # first hop of a pass -> settings

    def add(self, reference: str, layers: Iterable[nn.Module]) -> None:
        """Let routes name a model; its layers are built as the live model's own are."""
        self._layers[reference] = tuple(layers)

    def __contains__(self, reference: str) -> bool:
        """Whether routes may name a model."""
        return reference in self._layers

    def follow(self, hops: Sequence[Hop]) -> None:
        """Make these, one at least, the layers of the live model. Allocates no parameter."""
        said = self._settings(hops)
        self._hops, self._said = tuple(hops), {0: said}
        self._twins = [self._twin(hop, slot) for slot, hop in enumerate(hops)]
        self._begin_at(0)

    @contextmanager
    def passing(
        self, start: int, states: torch.Tensor | None, watchers: Mapping[int, Watcher]
    ) -> Iterator[None]:
        """Within, passes without a cache begin at hop `start`, which reads `states`.

        states: (rows, length, hidden) before that hop's scale; None where start is 0. watchers: by
        hop, told what enters it before its scale.
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
        if start not in self._said:
            self._said[start] = self._settings(self._hops[start:])
        setattr(self._owner, self._name, nn.ModuleList(self._twins[start:]))
        for config in self._configs:
            for key, value in self._said[start].items():
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
    """The module at a place in the cache: a copy that shares all but the number of that place.

    Itself where neither it nor a part of it has such a number. made: what became of other modules.
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
    """Another module with the very same attributes, parameters and parts."""
    twin = type(module).__new__(type(module))
    vars(twin).update(vars(module))
    return twin


def _scaling(scale: float) -> _PreHook:
    return lambda _, given: (given[0] * scale, *given[1:])


def _replacing(states: torch.Tensor) -> _PreHook:
    # A copy, as some layers add to what they read in place.
    return lambda _, given: (states.clone(), *given[1:])


def _telling(watcher: Watcher) -> _PreHook:
    def tell(_: nn.Module, given: tuple[Any, ...]) -> None:
        watcher(given[0])

    return tell

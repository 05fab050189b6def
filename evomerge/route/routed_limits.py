"""Which models' layers can be moved at all: those that compute the same under any number.

A layer may know its number by a factor, a kind or a shape that follows from it, and share what it
computes with other layers. It is found by comparing a model with one whose layers have moved.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from evomerge.errors import SourceError

_KNOWN = {
    "scale_attn_by_inverse_layer_idx": "attention is scaled by the number of the layer",
    "num_kv_shared_layers": "layers read the keys and values of others",
}
"""Settings that, where they are set, say that layers belong where they are."""

_NUMBER = "layer_idx"
"""What a layer calls its place in the cache; every hop gets its own."""


def check_settings(model: PreTrainedModel, *, named: str) -> None:
    """Raise SourceError, in one line, for settings that are known to tie layers to their places.

    named: the model, for the message.
    """
    config = model.config.get_text_config(decoder=True)
    for key, reason in _KNOWN.items():
        value = getattr(config, key, None)
        if value:
            raise _fixed(named, f"config.json says {key}: {value} ({reason})")


def check_moved(
    model: PreTrainedModel,
    moved: PreTrainedModel,
    *,
    stack: str,
    origins: Sequence[int],
    named: str,
) -> None:
    """Raise SourceError, in one line, for what is another once layers have moved.

    moved: the model with layer `origins[i]` as layer i; parameters are not read. stack: name of the
    list of layers in both. named: the model, for the message.
    """
    layers, there = (each.get_submodule(stack) for each in (model, moved))
    assert isinstance(layers, nn.ModuleList) and isinstance(there, nn.ModuleList)
    for place, origin in enumerate(origins):
        differs = _difference(_facts(layers[origin]), _facts(there[place]))
        if differs:
            raise _fixed(named, f"{differs} of a layer follows from its number")
    differs = _difference(_facts(model, but=f"{stack}."), _facts(moved, but=f"{stack}."))
    if differs:
        raise _fixed(named, f"{differs}, outside the layers, follows from how many there are")


def _fixed(named: str, reason: str) -> SourceError:
    return SourceError(
        f"{named}: {reason}, so its layers make no routes; search a space of parameters instead"
    )


def _difference(facts: dict[str, object], others: dict[str, object]) -> str | None:
    return next((name for name in {**facts, **others} if facts.get(name) != others.get(name)), None)


def _facts(module: nn.Module, *, but: str = "\0") -> dict[str, object]:
    """Plain attributes, and shapes of parameters and buffers, by name; `but`: not those within."""
    facts: dict[str, object] = {}
    for prefix, part in module.named_modules():
        path = f"{prefix}." if prefix else ""
        if path.startswith(but):
            continue
        for name, value in vars(part).items():
            plain = isinstance(value, (bool, int, float, str, tuple, type(None)))
            if plain and name != _NUMBER and not name.startswith("_"):
                facts[path + name] = value
        tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        facts.update((path + name, tuple(tensor.shape)) for name, tensor in tensors)
    return facts

"""A model's config.json: read, and what is read of it here checked to be of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import SourceError
from evomerge.sources.files import read_json
from evomerge.sources.layers import DEPTH_KEYS, DRAFT_KEY, WIDTH_KEYS
from evomerge.sources.settings import SECTIONS

CONFIG = "config.json"

_AT_LEAST: Mapping[str, int] = {
    **dict.fromkeys((*DEPTH_KEYS, DRAFT_KEY), 0),
    **dict.fromkeys((*WIDTH_KEYS, "vocab_size", "num_attention_heads"), 1),
}
"""Whole numbers, and the least that each can be."""

_MOST = 2**31


def read_config(folder: Path, named: str) -> Mapping[str, Any]:
    """The config.json of a folder. Raises SourceError that names the field that cannot be."""
    file = folder / CONFIG
    if not file.exists():
        raise SourceError(f"{named}: has no {CONFIG}; {_instead(folder)}")
    config = read_json(file, named)
    _check_names(config, named)
    for section in (config, *(config.get(name) for name in SECTIONS)):
        if isinstance(section, Mapping):
            _check_numbers(section, named)
    return config


def own_head(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a model whose files hold a head that is not the embeddings.

    transformers does not tie such a head whatever the configuration says; other programs do.
    """
    changed = {**config, "tie_word_embeddings": False}
    for name in SECTIONS:
        section = config.get(name)
        if isinstance(section, Mapping) and "tie_word_embeddings" in section:
            changed[name] = {**section, "tie_word_embeddings": False}
    return changed


def _check_names(config: Mapping[str, Any], named: str) -> None:
    architectures = config.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(each, str) for each in architectures)
    ):
        _refuse("architectures", architectures, "a list of names, as [LlamaForCausalLM]", named)
    model_type = config.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        _refuse("model_type", model_type, "a name", named)


def _check_numbers(section: Mapping[str, Any], named: str) -> None:
    for key, least in _AT_LEAST.items():
        value = section.get(key)
        # Some architectures have a list with a number for each layer.
        for each in value if isinstance(value, list) else [value]:
            if each is not None and not (type(each) is int and least <= each <= _MOST):
                _refuse(key, value, f"a whole number of {least} or more", named)
    tied = section.get("tie_word_embeddings")
    if tied is not None and not isinstance(tied, bool):
        _refuse("tie_word_embeddings", tied, "true or false", named)


def _refuse(key: str, value: object, wanted: str, named: str) -> None:
    raise SourceError(
        f"{named}: {key} in {CONFIG} is {str(value)[:60]!r}, not {wanted}; get the file again"
    )


def _instead(folder: Path) -> str:
    """What to give in place of a folder that holds no model itself."""
    inside = sorted(
        path.parent.name
        for name in ("config.json", "adapter_config.json")
        for path in folder.glob(f"*/{name}")
    )
    if inside:
        return f"give a folder inside it that holds a model, as {inside[0]} does"
    return "give the folder of a saved model"

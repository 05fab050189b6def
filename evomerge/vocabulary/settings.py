"""Settings in a model's configurations that name tokens, changed to the result's vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.errors import SourceError
from evomerge.sources import Adapter, Source, read_json, setting, with_setting

GENERATION_CONFIG = "generation_config.json"

_OF_THE_TOKENIZER = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Settings that belong to the tokenizer more than to the model."""

_ENDINGS = ("_token_id", "_token_index")
"""Endings of the names of settings that hold the row of a token."""


@dataclass(frozen=True, kw_only=True)
class TokenSettings:
    """Settings that differ from a model's own files, by name.

    config: of config.json, with its nested sections. generation: of generation_config.json, where
    the model has one.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)


def settings_for(
    source: Source,
    *,
    giver: Source,
    rows: int,
    before: Mapping[str, int],
    after: Mapping[str, int],
    leads: bool,
) -> TokenSettings:
    """The settings of a model once it has the vocabulary of the result.

    giver: the model that the result's tokenizer is made from. The begin, end and padding tokens
    that it states are those of the result. Every other setting keeps its token. before, after:
    token -> row, in the model and in the result. leads: whether the result takes its other settings
    from this model. If so, raises SourceError for a setting with a token that the result lacks.
    """
    tokens = {row: token for token, row in before.items()}

    def moved(key: str, value: Any) -> Any:
        """The new row of a token, or of each token in a list."""
        if isinstance(value, list):
            kept = [row for old_row in value if (row := moved(key, old_row)) is not None]
            return kept or None
        if value not in tokens:
            return value  # a row without a token stays as it is
        row = after.get(tokens[value])
        if row is None and leads and key not in _OF_THE_TOKENIZER:
            raise SourceError(
                f"{source.reference}: its {key} is {tokens[value]!r}, which the tokenizer of "
                f"{giver.reference} does not have; use the union of the tokenizers"
            )
        return row

    stated = _stated(source.config)
    from_giver = {} if giver is source else _stated(giver.config)
    config = {"vocab_size": (setting(source.config, "vocab_size"), rows)}
    config |= _changes(stated, from_giver, moved)
    own = _generation(source)
    generation_from_giver = {} if giver is source else {**from_giver, **_stated(_generation(giver))}
    generation = _changes(_stated(own), generation_from_giver, moved) if own else {}
    return TokenSettings(
        config={key: new for key, (old, new) in config.items() if new != old},
        generation={key: new for key, (old, new) in generation.items() if new != old},
    )


def with_settings(config: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config with these settings of the language model, kept in the sections that have them."""
    changed = dict(config)
    for key, value in settings.items():
        changed = with_setting(changed, key, value)
        if setting(changed, key) != value:
            changed[key] = value
    return changed


def _changes(
    stated: Mapping[str, Any], from_giver: Mapping[str, Any], moved: Callable[[str, Any], Any]
) -> dict[str, tuple[Any, Any]]:
    """Setting -> (old value, new value)."""
    changes = {}
    for key in dict.fromkeys([*stated, *(key for key in _OF_THE_TOKENIZER if key in from_giver)]):
        old = stated.get(key)
        from_tokenizer = key in _OF_THE_TOKENIZER and key in from_giver
        changes[key] = old, from_giver[key] if from_tokenizer else moved(key, old)
    return changes


def _stated(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of tokens that a configuration states; nested sections go before the top."""
    sections = [config, *(value for value in config.values() if isinstance(value, Mapping))]
    keys = [key for section in sections for key in section if key.endswith(_ENDINGS)]
    found = {key: setting(config, key) for key in dict.fromkeys(keys)}
    return {key: value for key, value in found.items() if value is not None}


def generation_file(source: Source) -> Path | None:
    """A model's generation_config.json; an adapter without one has its base's; None if none."""
    file = source.folder / GENERATION_CONFIG
    if file.is_file():
        return file
    return generation_file(source.base) if isinstance(source, Adapter) else None


def _generation(source: Source) -> Mapping[str, Any]:
    file = generation_file(source)
    return {} if file is None else read_json(file, source.reference)

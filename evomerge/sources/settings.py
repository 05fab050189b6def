"""Settings of the language model in a `config.json`, wherever it keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SECTIONS = ("text_config", "llm_config", "language_config")
"""Where models of several kinds keep the language model's settings."""


def setting(config: Mapping[str, Any], key: str) -> Any:
    """A setting of the language model; None where the config does not say it."""
    for name in SECTIONS:
        section = config.get(name)
        if isinstance(section, Mapping) and section.get(key) is not None:
            return section[key]
    return config.get(key)


def with_setting(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The config with a setting of the language model changed wherever it says it."""
    changed = {**config, key: value} if key in config else dict(config)
    for name in SECTIONS:
        section = config.get(name)
        if isinstance(section, Mapping) and key in section:
            changed[name] = {**section, key: value}
    return changed


def vocabulary_size(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Rows of the embeddings: `vocab_size`, else those of the matrix that has the most."""
    said = setting(config, "vocab_size")
    if isinstance(said, int):
        return said
    return max((shape[0] for shape in shapes.values() if len(shape) == 2), default=0)

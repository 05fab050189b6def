"""The tokenizer of a merged checkpoint, with its chat templates, and what generates with it.

Knows nothing of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.export.folder import copy_files, write_json
from evomerge.merge.generation_settings import merged_generation
from evomerge.sources import Source
from evomerge.sources.files import read_json
from evomerge.vocabulary import (
    GENERATION_CONFIG,
    TOKENIZER_FILES,
    AlignedSource,
    generation_file_of,
    settings_of,
    tokenizer_folder,
)

_OBJECTS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
"""Files of a tokenizer that hold one JSON object each."""


def check_tokenizer(source: Source) -> None:
    """Raise SourceError for a tokenizer that is damaged: its copy would load no better."""
    if isinstance(source, AlignedSource) and source.tokenizer is not None:
        return
    folder = tokenizer_folder(source) or source.folder
    for file in (folder / name for name in _OBJECTS):
        if file.exists():
            read_json(file, source.reference)


def copy_tokenizer(source: Source, folder: Path) -> None:
    """The tokenizer of a source: every file of it byte by byte, the chat templates included.

    An adapter without one has its base's. A tokenizer that an aligned source holds is written as
    transformers writes it.
    """
    if isinstance(source, AlignedSource) and source.tokenizer is not None:
        source.tokenizer.save_pretrained(folder)
    else:
        copy_files(tokenizer_folder(source) or source.folder, TOKENIZER_FILES, folder)


def write_generation_config(
    lead: Source, folder: Path, changes: Mapping[str, Any] | None = None
) -> None:
    """generation_config.json of the leading model, where it has one, for the result's tokens.

    changes: what it must say beside that. Without any it is copied byte by byte.
    """
    file = generation_file_of(lead)
    if file is not None and not changes and not settings_of(lead).generation:
        copy_files(file.parent, (GENERATION_CONFIG,), folder)
        return
    stated = merged_generation(changes or {}, lead)
    if stated is not None:
        write_json(folder, GENERATION_CONFIG, stated)

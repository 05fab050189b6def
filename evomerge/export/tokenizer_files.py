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
from evomerge.vocabulary import (
    GENERATION_CONFIG,
    TOKENIZER_FILES,
    AlignedSource,
    generation_file_of,
    settings_of,
    tokenizer_folder,
)


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

"""The tokenizer of a merged checkpoint, with its chat templates, and what generates with it.

Knows nothing of weights.
"""

from __future__ import annotations

from pathlib import Path

from evomerge.export.folder import copy_files, write_json
from evomerge.sources import Source
from evomerge.sources.files import read_json
from evomerge.vocabulary import (
    GENERATION_CONFIG,
    TOKENIZER_FILES,
    AlignedSource,
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


def write_generation_config(lead: Source, folder: Path) -> None:
    """generation_config.json of the leading model, where it has one, for the result's tokens."""
    settings = settings_of(lead).generation
    if not settings:
        copy_files(lead.folder, (GENERATION_CONFIG,), folder)
        return
    config = read_json(lead.folder / GENERATION_CONFIG, lead.reference)
    write_json(folder, GENERATION_CONFIG, {**config, **settings})

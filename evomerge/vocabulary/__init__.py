"""Vocabularies: models whose tokens differ, or lie in another order, made to share one tokenizer.

Rows of embeddings and heads are matched by token, as mergekit's `tokenizer:` does. A merge is then
given sources that agree, and needs to know nothing of tokens.
"""

from evomerge.vocabulary.aligned_source import (
    AlignedSource,
    config_folder,
    generation_file_of,
    settings_of,
    stated_generation,
)
from evomerge.vocabulary.alignment import (
    BLOCK_KEY,
    Alignment,
    align,
    align_sources,
    tokenizer_spec,
    vocabularies_agree,
    vocabulary_models,
)
from evomerge.vocabulary.end_tokens import end_rows
from evomerge.vocabulary.settings import GENERATION_CONFIG, TokenSettings
from evomerge.vocabulary.tokenizers import (
    TOKENIZER_FILES,
    TokenizerReader,
    same_files,
    tokenizer_folder,
)

__all__ = [
    "BLOCK_KEY",
    "GENERATION_CONFIG",
    "TOKENIZER_FILES",
    "AlignedSource",
    "Alignment",
    "TokenSettings",
    "TokenizerReader",
    "align",
    "align_sources",
    "config_folder",
    "end_rows",
    "generation_file_of",
    "same_files",
    "settings_of",
    "stated_generation",
    "tokenizer_folder",
    "tokenizer_spec",
    "vocabularies_agree",
    "vocabulary_models",
]

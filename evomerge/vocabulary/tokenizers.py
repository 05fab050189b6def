"""Tokenizers of models: loaded from their folders, and which row of the model is which token's.

Tokens are compared by their text alone. Nothing here knows of weights.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import tokenizers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase

from evomerge.errors import SourceError, one_line
from evomerge.sources import Adapter, Source
from evomerge.sources.settings import vocabulary_size

TOKENIZER_FILES = (
    "*token*.json",
    "*vocab*.json",
    "vocab.txt",
    "vocab.bpe",
    "merges.txt",
    "bpe.codes",
    "dict.txt",
    "*.model",
    "*.tiktoken",
    "*.spm",
    "*.tokenizer",
    "*.jinja",
    "chat_template.json",
    "normalizer.json",
    "byte_maps.json",
    "emoji.json",
    "word_*.json",
    "additional_chat_templates/*.jinja",
)
"""What a tokenizer is made of, its chat templates included."""

_VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "*.spm")
"""One of these is there wherever there is a tokenizer."""

_PIECE_FILES = ("*.model", "*.spm")
"""What SentencePiece writes; some of these hold a list of tokens as tiktoken writes it."""

_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+=* [0-9]+\r?\n")
_LINE_BYTES = 4096

_MODELS_WITH_A_LIST = ("BPE", "WordLevel", "WordPiece")
"""Kinds of tokenizer.json that hold token -> id, from which tokens can be taken out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """The tokens that a model has rows for.

    ids: token -> row, by row. added: those that stand beside the tokenizer's own model, by row.
    rows: of the model's embeddings; there may be more than tokens.
    """

    ids: Mapping[str, int]
    added: tuple[AddedToken, ...]
    rows: int

    def same_as(self, other: Tokens) -> bool:
        """Whether every row is the same token's."""
        return self is other or (self.rows == other.rows and self.ids == other.ids)


class TokenizerReader:
    """Loads tokenizers; what it learnt of one is kept for models with the same files."""

    def __init__(self, *, trust_remote_code: bool = False) -> None:
        self._trust_remote_code = trust_remote_code
        self._known: dict[tuple[str, int], Tokens] = {}

    def load(self, source: Source) -> PreTrainedTokenizerBase:
        """A new tokenizer of a model, an adapter's base's if it has none. Raises SourceError."""
        return self._from_folder(tokenizer_folder(source) or source.folder, source.reference)

    def tokens(self, source: Source, *, otherwise: Source) -> Tokens:
        """The tokens of a model's rows; one without a tokenizer has that of `otherwise`.

        Raises SourceError for a tokenizer that cannot be loaded.
        """
        folder = tokenizer_folder(source) or tokenizer_folder(otherwise) or otherwise.folder
        rows = vocabulary_size(source.config, source.structure.shapes)
        key = _digest(folder), rows
        if key not in self._known:
            self._known[key] = tokens_of(self._from_folder(folder, source.reference), rows)
        return self._known[key]

    def settled(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The tokenizer as it is once saved and loaded: what an export will hold."""
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            return self._from_folder(Path(folder), "the tokenizer of the result")

    def _from_folder(self, folder: Path, named: str) -> PreTrainedTokenizerBase:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=self._trust_remote_code
            )
        except Exception as error:  # whatever a damaged tokenizer makes the libraries raise
            raise SourceError(
                f"{named}: its tokenizer cannot be loaded ({_why_not(error, folder)}); "
                "put its files right, or take the tokenizer of another model"
            ) from error
        return cast(PreTrainedTokenizerBase, tokenizer)


def _why_not(error: Exception, folder: Path) -> str:
    """Why a tokenizer cannot be loaded; transformers takes a damaged file for one of tiktoken's."""
    if "tiktoken" in str(error):
        for file in sorted(path for pattern in _PIECE_FILES for path in folder.glob(pattern)):
            with file.open("rb") as stream:
                if not _TIKTOKEN_LINE.match(stream.read(_LINE_BYTES)):
                    return f"{file.name} is no SentencePiece model, or damaged"
    return one_line(error)


def same_files(source: Source, other: Source) -> bool:
    """Whether two models have the same tokenizer to the byte, chat templates included."""
    ours, theirs = tokenizer_folder(source), tokenizer_folder(other)
    return ours is not None and (ours == theirs or _files(ours) == _files(theirs))


def _files(folder: Path | None) -> dict[str, bytes]:
    if folder is None:
        return {}
    paths = {path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)}
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def tokens_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> Tokens:
    """Which of `rows` rows is which token's; tokens beyond them are left out."""
    by_row = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    return Tokens(
        ids={token: row for token, row in by_row if row < rows},
        added=tuple(
            token for row, token in sorted(tokenizer.added_tokens_decoder.items()) if row < rows
        ),
        rows=rows,
    )


def tokenizer_folder(source: Source) -> Path | None:
    """Where a model's tokenizer lies: beside it, or for an adapter beside its base."""
    if any(any(source.folder.glob(pattern)) for pattern in _VOCABULARY_FILES):
        return source.folder
    return tokenizer_folder(source.base) if isinstance(source, Adapter) else None


def without_tokens_beyond(
    tokenizer: PreTrainedTokenizerBase, rows: int, *, named: str
) -> PreTrainedTokenizerBase:
    """The tokenizer without the tokens that a model of `rows` rows has none for.

    It is changed in place where there are any. named: the model, for messages. Raises SourceError
    for a kind of tokenizer that tokens cannot be taken out of.
    """
    beyond = {token for token, row in tokenizer.get_vocab().items() if row >= rows}
    if not beyond:
        return tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    document = json.loads(backend.to_str()) if isinstance(backend, tokenizers.Tokenizer) else {}
    model = document.get("model", {})
    kind = model.get("type", "slow")
    if kind not in _MODELS_WITH_A_LIST:
        token = min(beyond)
        raise SourceError(
            f"{named}: its {kind} tokenizer has tokens beyond its {rows} rows ({token!r}), and "
            f"they can be taken out of {', '.join(_MODELS_WITH_A_LIST)} only; take them out, or "
            "take the tokenizer of another model"
        )
    document["added_tokens"] = [
        token for token in document["added_tokens"] if token["content"] not in beyond
    ]
    model["vocab"] = {token: row for token, row in model["vocab"].items() if token not in beyond}
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if beyond.isdisjoint(_parts(merge))]
    tokenizer._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(document))
    return tokenizer


def _parts(merge: Any) -> list[str]:
    """The two tokens of a merge, as old and new files write it, and what they make."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return [left, right, left + right]


def _digest(folder: Path) -> str:
    """Of the files that say which token has which row."""
    digest = hashlib.sha256()
    for file in sorted(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        if file.suffix != ".jinja":
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()

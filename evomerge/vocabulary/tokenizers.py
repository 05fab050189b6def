"""Tokenizers of models: loaded from their folders, and which row of the model is which token's.

Tokens are compared by their text alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import tokenizers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase

from evomerge.errors import SourceError, one_line
from evomerge.sources import Adapter, Source, read_json, vocabulary_size

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


# The tokens that end the answers of several models, as rows of the model that they are merged to.
#
# A row of one model may be another token's row in the result.


_TOKENIZER_CONFIG = "tokenizer_config.json"


def end_rows(
    models: Mapping[str, Source],
    ends: Callable[[Source], Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    reader: TokenizerReader,
) -> dict[str, tuple[int, ...]]:
    """Model -> the end tokens of its own files, as rows of the result; those it lacks are left out.

    models: as their own files are, the first being whose tokenizer those without one have. ends:
    what a model's configurations say. tokenizer: of the result; None where every model keeps its
    rows. Where the models' tokenizers name other ends, those count too. Raises SourceError.
    """
    first = next(iter(models.values()))
    apart = len({_named_end(source) for source in models.values()}) > 1
    after = None if tokenizer is None else tokenizer.get_vocab()
    found: dict[str, tuple[int, ...]] = {}
    for name, source in models.items():
        rows = list(ends(source))
        if apart and tokenizer_folder(source) is not None:
            own = reader.load(source).eos_token_id
            rows += [] if own is None else [own]
        if after is not None:
            known = reader.tokens(source, otherwise=first).ids
            before = {row: token for token, row in known.items()}
            rows = [after[before[row]] for row in rows if before.get(row) in after]
        found[name] = tuple(dict.fromkeys(rows))
    return found


def _named_end(source: Source) -> str | None:
    """The end token that a model's tokenizer names, without loading it."""
    folder = tokenizer_folder(source)
    file = None if folder is None else folder / _TOKENIZER_CONFIG
    if file is None or not file.is_file():
        return None
    end = read_json(file, source.reference).get("eos_token")
    return str(end.get("content")) if isinstance(end, Mapping) else end and str(end)


# The union of tokenizers: one that knows every token of several.
#
# Added are tokens, not merges: a text is cut as the first tokenizer cuts it, and a word of
# another counts as one token wherever it occurs. It is what mergekit's `union` makes, in a fixed
# order.


def add_union(tokenizer: PreTrainedTokenizerBase, models: Sequence[Tokens]) -> None:
    """Add the tokens of all models to the tokenizer of the first of them, which keeps its own.

    First come the words of the others, then what they have added; model after model, by row. Of a
    token that several add with different settings the first counts.
    """
    before = tokenizer.get_vocab()
    beside = {token.content for model in models for token in model.added}
    words: dict[str, None] = {}
    added: dict[str, AddedToken] = {}
    for model in models:
        own = {token.content for token in model.added}
        words |= dict.fromkeys(token for token in model.ids if token not in own)
        for token in model.added:
            added.setdefault(token.content, token)
    tokenizer.add_tokens([word for word in words if word not in before and word not in beside])
    tokenizer.add_tokens(list(added.values()))

"""Tokenizers of models: loading them, and which row of a model belongs to which token.

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
from typing import TYPE_CHECKING, Any, cast

from evomerge.errors import SourceError, one_line
from evomerge.sources import Adapter, Source, read_json, vocabulary_size

if TYPE_CHECKING:
    from transformers import AddedToken, PreTrainedTokenizerBase

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
"""The files of a tokenizer, with its chat templates."""

_VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "*.spm")
"""Every tokenizer has at least one of these files."""

_PIECE_FILES = ("*.model", "*.spm")
"""Files of SentencePiece; some of them hold a token list in the format of tiktoken."""

_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+=* [0-9]+\r?\n")
_LINE_BYTES = 4096

_MODELS_WITH_A_LIST = ("BPE", "WordLevel", "WordPiece")
"""Kinds of tokenizer.json that hold token -> id, so that tokens can be removed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """The tokens that a model has rows for.

    ids: token -> row, in the order of rows. added: tokens outside the tokenizer's own model, in the
    order of rows. rows: number of rows of the model's embeddings; it may exceed the number of
    tokens.
    """

    ids: Mapping[str, int]
    added: tuple[AddedToken, ...]
    rows: int

    def same_as(self, other: Tokens) -> bool:
        """Whether every row belongs to the same token in both."""
        return self is other or (self.rows == other.rows and self.ids == other.ids)


class TokenizerReader:
    """Loads tokenizers; the tokens of one are kept for models with the same files."""

    def __init__(self, *, trust_remote_code: bool = False) -> None:
        self._trust_remote_code = trust_remote_code
        self._known: dict[tuple[str, int], Tokens] = {}

    def load(self, source: Source) -> PreTrainedTokenizerBase:
        """Load a model's tokenizer; for an adapter without one, its base's. Raises SourceError."""
        return self._from_folder(tokenizer_folder(source) or source.folder, source.reference)

    def tokens(self, source: Source, *, otherwise: Source) -> Tokens:
        """The tokens of a model's rows; a model without a tokenizer has that of `otherwise`.

        Raises SourceError for a tokenizer that cannot be loaded.
        """
        folder = tokenizer_folder(source) or tokenizer_folder(otherwise) or otherwise.folder
        rows = vocabulary_size(source.config, source.structure.shapes)
        key = _digest(folder), rows
        if key not in self._known:
            self._known[key] = tokens_of(self._from_folder(folder, source.reference), rows)
        return self._known[key]

    def settled(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The tokenizer after saving and loading it, as an export will have it."""
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            return self._from_folder(Path(folder), "the tokenizer of the result")

    def _from_folder(self, folder: Path, named: str) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=self._trust_remote_code
            )
        except Exception as error:  # a damaged tokenizer can make the libraries raise anything
            raise SourceError(
                f"{named}: its tokenizer cannot be loaded ({_why_not(error, folder)}); "
                "mend its files, or use the tokenizer of another model"
            ) from error
        return cast("PreTrainedTokenizerBase", tokenizer)


def _why_not(error: Exception, folder: Path) -> str:
    """Why a tokenizer cannot be loaded; transformers mistakes a damaged file for tiktoken's."""
    if "tiktoken" in str(error):
        for file in sorted(path for pattern in _PIECE_FILES for path in folder.glob(pattern)):
            with file.open("rb") as stream:
                if not _TIKTOKEN_LINE.match(stream.read(_LINE_BYTES)):
                    return f"{file.name} is not a SentencePiece model, or is damaged"
    return one_line(error)


def same_files(source: Source, other: Source) -> bool:
    """Whether two models have the same tokenizer files, byte for byte, with chat templates."""
    ours, theirs = tokenizer_folder(source), tokenizer_folder(other)
    return ours is not None and (ours == theirs or _files(ours) == _files(theirs))


def _files(folder: Path | None) -> dict[str, bytes]:
    if folder is None:
        return {}
    paths = {path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)}
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def tokens_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> Tokens:
    """The tokens of the first `rows` rows; tokens beyond them are left out."""
    by_row = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    return Tokens(
        ids={token: row for token, row in by_row if row < rows},
        added=tuple(
            token for row, token in sorted(tokenizer.added_tokens_decoder.items()) if row < rows
        ),
        rows=rows,
    )


def tokenizer_folder(source: Source) -> Path | None:
    """The folder of a model's tokenizer: its own, or its base's for an adapter without one."""
    if any(any(source.folder.glob(pattern)) for pattern in _VOCABULARY_FILES):
        return source.folder
    return tokenizer_folder(source.base) if isinstance(source, Adapter) else None


def without_tokens_beyond(
    tokenizer: PreTrainedTokenizerBase, rows: int, *, named: str
) -> PreTrainedTokenizerBase:
    """The tokenizer without the tokens that have no row in a model of `rows` rows.

    If there are such tokens, the tokenizer is changed in place. named: the model, for messages.
    Raises SourceError for a kind of tokenizer from which tokens cannot be removed.
    """
    beyond = {token for token, row in tokenizer.get_vocab().items() if row >= rows}
    if not beyond:
        return tokenizer
    import tokenizers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    document = json.loads(backend.to_str()) if isinstance(backend, tokenizers.Tokenizer) else {}
    model = document.get("model", {})
    kind = model.get("type", "slow")
    if kind not in _MODELS_WITH_A_LIST:
        token = min(beyond)
        raise SourceError(
            f"{named}: its {kind} tokenizer has tokens beyond its {rows} rows ({token!r}), and "
            f"they can be removed from {', '.join(_MODELS_WITH_A_LIST)} only; remove them, or "
            "use the tokenizer of another model"
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
    """The two tokens of a merge, in the old or new file format, and the token they form."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return [left, right, left + right]


def _digest(folder: Path) -> str:
    """A digest of the files that assign rows to tokens."""
    digest = hashlib.sha256()
    for file in sorted(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        if file.suffix != ".jinja":
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


# The tokens that end the answers of several models, as rows of their merge.
#
# A row of one model may belong to another token in the result.


_TOKENIZER_CONFIG = "tokenizer_config.json"


def end_rows(
    models: Mapping[str, Source],
    ends: Callable[[Source], Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    reader: TokenizerReader,
) -> dict[str, tuple[int, ...]]:
    """Model -> its own end tokens, as rows of the result; tokens the result lacks are left out.

    models: as in their own files; models without a tokenizer have that of the first. ends: the end
    tokens in a model's configurations. tokenizer: of the result; None where every model keeps its
    rows. If the models' tokenizers name different end tokens, these count too. Raises SourceError.
    """
    first = next(iter(models.values()))
    ends_differ = len({_named_end(source) for source in models.values()}) > 1
    after = None if tokenizer is None else tokenizer.get_vocab()
    rows_of: dict[str, tuple[int, ...]] = {}
    for name, source in models.items():
        rows = list(ends(source))
        if ends_differ and tokenizer_folder(source) is not None:
            own = reader.load(source).eos_token_id
            rows += [] if own is None else [own]
        if after is not None:
            known = reader.tokens(source, otherwise=first).ids
            before = {row: token for token, row in known.items()}
            rows = [after[before[row]] for row in rows if before.get(row) in after]
        rows_of[name] = tuple(dict.fromkeys(rows))
    return rows_of


def _named_end(source: Source) -> str | None:
    """The end token that a model's tokenizer names, without loading it."""
    folder = tokenizer_folder(source)
    file = None if folder is None else folder / _TOKENIZER_CONFIG
    if file is None or not file.is_file():
        return None
    end = read_json(file, source.reference).get("eos_token")
    return str(end.get("content")) if isinstance(end, Mapping) else end and str(end)


# The union of tokenizers: one tokenizer with the tokens of all.
#
# It adds tokens, not merges. The first tokenizer still splits a text, but a word of another
# tokenizer is one token wherever it occurs. This is the same as mergekit's `union`, in a fixed
# order.


def add_union(tokenizer: PreTrainedTokenizerBase, models: Sequence[Tokens]) -> None:
    """Add the tokens of all models to the tokenizer of the first model, which keeps its own.

    The words of the other models come first, then their added tokens; model after model, by row. If
    several models add a token with different settings, the first one counts.
    """
    before = tokenizer.get_vocab()
    added_texts = {token.content for model in models for token in model.added}
    words: dict[str, None] = {}
    added: dict[str, AddedToken] = {}
    for model in models:
        own = {token.content for token in model.added}
        words |= dict.fromkeys(token for token in model.ids if token not in own)
        for token in model.added:
            added.setdefault(token.content, token)
    tokenizer.add_tokens([word for word in words if word not in before and word not in added_texts])
    tokenizer.add_tokens(list(added.values()))

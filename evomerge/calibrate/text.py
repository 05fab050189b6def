"""The text that models are calibrated on: read, and cut into sequences of equal length."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from evomerge.errors import InputError

_SHORTEST = 2
"""Fewest tokens of a sequence that has something to predict."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Documents of a file. sha256: of its bytes. where: how messages name it."""

    documents: tuple[str, ...]
    sha256: str
    where: str


def read_text(file: Path) -> Text:
    """Read a UTF-8 file as one document, or a `.jsonl` file as the `text` of every line.

    Raises InputError in one line.
    """
    where = f"--text: {file}"
    try:
        content = file.read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8; convert it") from error
    documents = [text]
    if file.suffix == ".jsonl":
        lines = enumerate(text.split("\n"), start=1)
        documents = [_document(line, f"{where}:{number}") for number, line in lines if line.strip()]
    return Text(
        documents=tuple(document for document in documents if document.strip()),
        sha256=hashlib.sha256(content).hexdigest(),
        where=where,
    )


def _document(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON; write one object a line") from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(f'{where}: has no text; write {{"text": "..."}}')
    return text


def cut_sequences(
    text: Text, tokenizer: PreTrainedTokenizerBase, *, count: int, length: int, seed: int
) -> NDArray[np.int64]:
    """Token ids, (sequences, tokens): at most `count` pieces of the documents laid end to end.

    Each document has the special tokens that the tokenizer adds. If there are more pieces than
    wanted, some are drawn by `seed` and stay in their order. Tokens left over at the end are not
    used. A text shorter than `length` is one shorter piece. Raises InputError if it is empty.
    """
    encoded = [tokenizer(document, verbose=False)["input_ids"] for document in text.documents]
    stream = np.array([token for tokens in encoded for token in tokens], dtype=np.int64)
    if len(stream) < _SHORTEST:
        raise InputError(f"{text.where}: holds {len(stream)} tokens; give more text")
    length = min(length, len(stream))
    pieces = stream[: len(stream) // length * length].reshape(-1, length)
    if len(pieces) <= count:
        return pieces
    drawn = np.random.default_rng(seed).choice(len(pieces), size=count, replace=False)
    return pieces[np.sort(drawn)]

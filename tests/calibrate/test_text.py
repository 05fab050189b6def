"""The text that models are calibrated on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from evomerge.calibrate.text import Text, cut_sequences, read_text
from evomerge.errors import InputError
from tests.checkpoints import WORDS, word_tokenizer


def text_of(*documents: str) -> Text:
    return Text(documents=documents, sha256="", where="--text: t")


def ids(words: str) -> list[int]:
    return [WORDS.index(word) for word in words.split()]


def refused(file: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_text(file)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"--text: {file}")
    return message


def test_a_file_is_one_document(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_bytes("one two\nth\u00e9\n".encode())
    read = read_text(file)
    assert read.documents == ("one two\nth\u00e9\n",)
    assert read.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_every_line_of_a_jsonl_file_is_one(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "one\u2028two"}\n\n{"text": "three", "id": 3}\n{"text": " "}\n')
    assert read_text(file).documents == ("one\u2028two", "three")


def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "missing.txt")
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused(binary)
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "one"}\n{"body": "two"}\n')
    assert ":2: has no text" in refused(lines)
    for text in ("one\n", "[" * 100_000):
        lines.write_text(text)
        assert ":1: not JSON" in refused(lines)


def test_sequences_run_on_from_document_to_document() -> None:
    pieces = cut_sequences(
        text_of("one two three", "four five", "six"), word_tokenizer(), count=9, length=2, seed=0
    )
    assert pieces.tolist() == [ids("one two"), ids("three four"), ids("five six")]


def test_what_is_left_over_is_not_used_but_a_short_text_is() -> None:
    tokenizer = word_tokenizer()
    text = text_of("one two three four five")
    assert cut_sequences(text, tokenizer, count=9, length=2, seed=0).shape == (2, 2)
    assert cut_sequences(text, tokenizer, count=9, length=100, seed=0).shape == (1, 5)
    with pytest.raises(InputError, match="holds 1 tokens; give more text"):
        cut_sequences(text_of("one"), tokenizer, count=9, length=2, seed=0)


def test_more_than_is_wanted_is_drawn_by_the_seed_in_order() -> None:
    tokenizer = word_tokenizer()
    text = text_of(" ".join(WORDS[4:]))
    whole = cut_sequences(text, tokenizer, count=1000, length=3, seed=0)
    first, again, other = (
        cut_sequences(text, tokenizer, count=5, length=3, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    places = [whole.tolist().index(piece) for piece in first.tolist()]
    assert places == sorted(set(places))

"""Lengths are counted as people count them."""

from __future__ import annotations

import pytest

from evomerge.conditions import parse_conditions
from evomerge.conditions.prose import split_sentences


def kept(text: str, **limits: object) -> bool:
    (condition,) = parse_conditions(limits)
    return condition.kept(text)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("One. Two! Three?", 3),
        ("It costs 3.14 dollars at example.com today.", 1),
        ("No end", 1),
        ("空は青い。海も青い。", 2),
        ("本当ですか？！はい。", 2),
        ('He said "Stop." Then he left.', 2),
        ("Wait... what?", 2),
        ("「はい。」と言った。", 2),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    assert len(split_sentences(text)) == sentences


def test_limits_are_inclusive() -> None:
    text = "one two three"
    assert kept(text, length="words", at_most=3)
    assert not kept(text, length="words", at_most=2)
    assert kept(text, length="words", at_least=3)
    assert not kept(text, length="words", at_least=4)
    assert kept(text, length="words", at_least=3, at_most=3)


def test_characters_are_counted_without_white_space() -> None:
    assert kept("空は 青い。\n", length="characters", at_least=5, at_most=5)


def test_a_dash_alone_is_no_word() -> None:
    assert kept("one - two", length="words", at_least=2, at_most=2)


def test_empty_lines_do_not_count() -> None:
    assert kept("a\n\n b\n\n", length="lines", at_least=2, at_most=2)

"""The last number of an answer, by both readings."""

from __future__ import annotations

import pytest

from evomerge.conditions import read_last_number

CASES = (
    # text, separated, published
    ("答えは18です。", 18, 18),
    ("最初は20個、残りは18個です。", 18, 18),
    ("The answer is 18.", 18, 18),
    ("答えは１８です。", 18, 18),
    ("70,000ドル", 70000, 0),
    ("1,450,000", 1450000, 0),
    ("７０，０００円", 70000, 0),
    (r"\boxed{70{,}000}", 70000, 0),
    (r"$70\,000$", 70000, 0),
    ("$2,125.50", 2125.5, 125.5),
    ("1,2,3", 3, 3),
    ("12,3456", 3456, 3456),
    ("-10", -10, 10),
    ("損は−10ドル", -10, 10),
    ("-$5", -5, 5),
    ("16 - 3", 3, 3),
    ("10-3", 3, 3),
    ("(4)-3", 3, 3),
    ("半分は.5です", 0.5, 0.5),
    ("540 m²", 540, 540),
    ("七万", None, None),
    ("7万ドル", 7, 7),
    ("わかりません。", None, None),
    ("", None, None),
)


@pytest.mark.parametrize(("text", "separated", "published"), CASES)
def test_the_last_number(text: str, separated: float | None, published: float | None) -> None:
    assert read_last_number(text) == separated
    assert read_last_number(text, "published") == published

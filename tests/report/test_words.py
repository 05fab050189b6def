from __future__ import annotations

import pytest

from evomerge.report.words import (
    count_text,
    duration_text,
    estimate_text,
    gain_text,
    one_line,
    score_text,
)


def test_scores_have_three_decimals_and_a_missing_one_is_a_dash() -> None:
    assert score_text(0.5) == "0.500"
    assert score_text(None) == "–"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0521, "+0.052"), (-0.0521, "−0.052"), (-0.0001, "0.000"), (0.0, "0.000")]
)
def test_a_gain_is_signed_unless_it_rounds_to_nothing(value: float, text: str) -> None:
    assert gain_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (750, "12 min 30 s"),
        (3599.7, "1 h 00 min"),
        (11100, "3 h 05 min"),
    ],
)
def test_durations_show_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "under a minute"),
        (720, "about 12 min"),
        (3 * 3600, "about 3.0 h"),
        (72 * 3600, "about 3.0 days"),
    ],
)
def test_estimates_are_no_finer_than_they_deserve(seconds: float, text: str) -> None:
    assert estimate_text(seconds) == text


def test_counts_agree_with_their_noun() -> None:
    assert count_text(1, "candidate") == "1 candidate"
    assert count_text(2400, "candidate") == "2,400 candidates"


def test_text_of_others_is_one_line_without_control_characters() -> None:
    assert one_line("a\x1b[31m red\nline\r\u202e end ") == "a [31m red line end"


@pytest.mark.parametrize(
    ("value", "text"), [(1.012, "≥ 1"), (-0.02, "≤ 0"), (1.0, "1.000"), (1.0 + 1e-12, "1.000")]
)
def test_an_estimate_of_a_share_is_no_score_outside_of_shares(value: float, text: str) -> None:
    assert score_text(value, shares=True) == text
    assert score_text(value) == f"{value:.3f}"

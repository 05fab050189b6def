"""Plans are made once for the same texts and limits, and the last ones are kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evomerge.evaluate.engines.transformers import token_tree
from evomerge.evaluate.engines.transformers.token_tree import KeptPlans, Limits, plan_passes

LIMITS = Limits(pass_tokens=16, row_tokens=8, packed_tokens=8)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each plan was made for."""
    counts: list[int] = []

    def count(texts: list[np.ndarray], limits: Limits) -> object:
        counts.append(len(texts))
        return plan_passes(texts, limits)

    monkeypatch.setattr(token_tree, "plan_passes", count)
    return counts


def texts_of(*texts: list[int]) -> list[np.ndarray]:
    return [np.array(text, dtype=np.int64) for text in texts]


def test_the_same_texts_are_planned_once(made: list[int]) -> None:
    kept = KeptPlans()
    first = kept.plan(texts_of([1, 2, 3], [4, 5]), LIMITS)
    assert kept.plan(texts_of([1, 2, 3], [4, 5]), LIMITS) is first
    assert made == [2]


@pytest.mark.parametrize(
    ("texts", "limits"),
    [
        (([1, 2], [3, 4, 5]), LIMITS),
        (([4, 5], [1, 2, 3]), LIMITS),
        (([1, 2, 3], [4, 5]), dataclasses.replace(LIMITS, row_tokens=4)),
        (([1, 2, 3], [4, 5]), dataclasses.replace(LIMITS, pass_tokens=4)),
    ],
)
def test_other_texts_and_other_limits_have_their_own_plan(
    texts: tuple[list[int], ...], limits: Limits, made: list[int]
) -> None:
    kept = KeptPlans()
    kept.plan(texts_of([1, 2, 3], [4, 5]), LIMITS)
    kept.plan(texts_of(*texts), limits)
    assert made == [2, 2]


def test_a_plan_not_asked_for_in_a_while_is_forgotten(
    made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_tree, "_KEPT_CELLS", 8)
    kept = KeptPlans()
    for _ in range(2):  # the first is asked for between the others, and stays
        for word in range(12):
            kept.plan(texts_of([0]), LIMITS)
            kept.plan(texts_of([word + 1]), LIMITS)
    assert len(made) == 1 + 2 * 12


def test_the_latest_plan_is_kept_however_large_it_is(
    made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_tree, "_KEPT_CELLS", 2)
    kept = KeptPlans()
    for _ in range(2):
        kept.plan(texts_of([1, 2, 3], [4, 5]), LIMITS)
    assert made == [2]

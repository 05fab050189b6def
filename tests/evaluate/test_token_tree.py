"""Plans over trees of texts: every token in its place, seen by its own, and computed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.evaluate.engines.transformers.token_tree import Limits, Pass, Plan, plan_passes

SMALL = Limits(pass_tokens=24, row_tokens=8, packed_tokens=8)

TEXTS = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=14).map(tuple),
    min_size=1,
    max_size=25,
    unique=True,
)
"""Of three words, so that many begin alike."""


def plan_of(texts: Sequence[Sequence[int]], **limits: int) -> Plan:
    """By SMALL limits, or others; packed rows are as long as others if not said."""
    if "row_tokens" in limits:
        limits = {"packed_tokens": limits["row_tokens"], **limits}
    arrays = [np.array(text, dtype=np.int64) for text in texts]
    return plan_passes(arrays, dataclasses.replace(SMALL, **limits), shortest=3)


def read_back(plan: Plan, text: int, depth: int) -> tuple[list[int], list[int]]:
    """The ids and depths that the token of a text at a depth sees, itself last."""
    number, cell = plan.places[text].find(depth)
    each = plan.passes[number]
    row, column = divmod(cell, each.ids.shape[1])
    own = [other for other in range(column + 1) if each.ends[row, other] > column]
    # What the cache holds at that pass: the trunks before it, cut to its past.
    held: list[tuple[int, int]] = []
    for earlier in plan.passes[:number]:
        if earlier.trunk:
            fresh = zip(earlier.ids[0].tolist(), earlier.depths[0].tolist(), strict=True)
            held = [*held[: earlier.past], *fresh]
    assert len(held) >= each.past
    held = held[: each.past]
    return (
        [word for word, _ in held] + each.ids[row, own].tolist(),
        [place for _, place in held] + each.depths[row, own].tolist(),
    )


@given(texts=TEXTS)
def test_every_token_sees_the_beginning_of_its_text_and_nothing_else(
    texts: list[tuple[int, ...]],
) -> None:
    plan = plan_of(texts)
    for number, text in enumerate(texts):
        for depth in range(len(text)):
            ids, depths = read_back(plan, number, depth)
            assert tuple(ids) == text[: depth + 1]
            assert depths == list(range(depth + 1))


@given(texts=TEXTS)
def test_every_text_ends_in_one_pass_which_says_so(texts: list[tuple[int, ...]]) -> None:
    plan = plan_of(texts)
    ended = [text for each in plan.passes for text in each.texts]
    assert sorted(ended) == list(range(len(texts)))
    for number, each in enumerate(plan.passes):
        assert all(plan.places[text].last == number for text in each.texts)
        assert all(plan.places[text].past == each.past for text in each.texts)


@given(texts=TEXTS)
def test_padding_sees_itself_alone_and_passes_keep_to_their_size(
    texts: list[tuple[int, ...]],
) -> None:
    for each in plan_of(texts).passes:
        rows, columns = each.ids.shape
        assert rows == 1 or rows * columns <= SMALL.pass_tokens
        assert (each.ends > np.arange(columns)).all()
        if each.trunk:
            assert rows == 1
        longest = max(len(text) for text in texts)
        assert columns <= max(SMALL.row_tokens, longest) + SMALL.row_tokens // 4


@given(texts=TEXTS, seed=st.integers(0, 9))
def test_the_order_of_the_texts_changes_no_pass(texts: list[tuple[int, ...]], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(texts))
    first, second = plan_of(texts), plan_of([texts[i] for i in order])
    assert len(first.passes) == len(second.passes)
    for one, other in zip(first.passes, second.passes, strict=True):
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.ends, other.ends)
        assert [int(order[text]) for text in other.texts] == list(one.texts)


def test_a_shared_beginning_is_read_once_however_many_passes_follow() -> None:
    beginning = list(range(100, 140))
    texts = [[*beginning, number, number + 1, number + 2] for number in range(0, 90, 3)]
    plan = plan_of(texts)
    assert sum(int((each.ids >= 100).sum()) for each in plan.passes) == len(beginning)
    assert [each.trunk for each in plan.passes].count(True) == 1
    assert len(plan.passes) > 2
    assert sum(each.ids.size for each in plan.passes) <= 40 + 3 * 30 + 8  # hardly any padding


def test_choices_after_one_context_are_branches_of_one_row() -> None:
    context = list(range(5))
    plan = plan_of([[*context, 7, 8], [*context, 7, 9], [*context, 6]], row_tokens=16)
    (only,) = plan.passes
    assert only.ids.tolist() == [[0, 1, 2, 3, 4, 6, 7, 8, 9]]
    assert only.depths.tolist() == [[0, 1, 2, 3, 4, 5, 5, 6, 6]]
    assert only.ends.tolist() == [[9, 9, 9, 9, 9, 6, 9, 8, 9]]


def test_texts_that_share_nothing_fill_rows_of_the_width_asked_for() -> None:
    texts = [[number] * 5 for number in range(40)]
    plan = plan_of(texts, row_tokens=10, pass_tokens=40)
    assert {each.ids.shape for each in plan.passes} == {(4, 10)}


@pytest.mark.parametrize("length", [7, 200])
def test_one_text_alone_needs_no_mask(length: int) -> None:
    (only,) = plan_of([list(range(length))]).passes
    assert only.causal
    assert not any(each.causal for each in plan_of([[1, 2, 3], [1, 2, 4]], row_tokens=20).passes)


def test_rows_of_one_text_each_need_no_mask_and_two_in_a_row_do() -> None:
    texts = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    (apart,) = plan_of(texts, row_tokens=4).passes
    assert apart.causal
    assert apart.ids.tolist() == [[6, 7, 8, 9], [1, 2, 3, 0], [4, 5, 0, 0]]
    (packed,) = plan_of(texts, row_tokens=5).passes
    assert not packed.causal


def test_texts_that_begin_alike_stay_in_a_longer_row_than_others() -> None:
    alike = [[1, 2, 3, 4, end] for end in (5, 6, 7)]
    others = [[10 + n, 20 + n] for n in range(4)]
    plan = plan_of([*alike, *others], row_tokens=8, packed_tokens=4)
    rows = sorted(int((each.ids > 0).sum(axis=1)[row]) for each, row in _rows(plan))
    assert rows == [4, 4, 7]


def test_one_common_token_is_no_reason_for_a_long_row() -> None:
    texts = [[1, *range(10 * n, 10 * n + 5)] for n in range(1, 5)]
    plan = plan_of(texts, row_tokens=24, packed_tokens=6)
    assert [each.ids.shape for each in plan.passes] == [(4, 6)]
    assert plan.passes[0].causal


def test_rows_fill_up_to_the_longest_of_their_pass_which_they_are_padded_to_anyhow() -> None:
    texts = [[n] * length for n, length in ((1, 10), (2, 6), (3, 5), (4, 4), (5, 2))]
    (only,) = plan_of(texts, row_tokens=4, pass_tokens=30).passes
    assert only.ids.shape == (3, 10)
    assert int((only.ids > 0).sum()) == 27


def test_after_a_long_text_rows_are_short_again() -> None:
    texts = [[1] * 24, *([n] * 4 for n in range(2, 8))]
    first, *others = plan_of(texts, row_tokens=4, pass_tokens=24).passes
    assert first.ids.shape == (1, 24)
    assert [each.ids.shape for each in others] == [(6, 4)]
    assert all(each.causal for each in others)


def _rows(plan: Plan) -> list[tuple[Pass, int]]:
    return [(each, row) for each in plan.passes for row in range(len(each.ids))]


def test_rows_that_go_on_from_a_trunk_need_a_mask() -> None:
    trunk = [1, 2, 3, 4, 5]
    first, *others = plan_of([[*trunk, *[end] * 6] for end in (6, 7, 8)]).passes
    assert first.trunk and first.causal
    assert others and not any(each.causal for each in others)

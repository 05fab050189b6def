"""Which row of which model each row of the result is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evomerge.errors import RecipeError
from evomerge.recipe import TokenizerSpec
from evomerge.vocabulary.rows import RowPlan, plan_rows
from evomerge.vocabulary.tokenizers import Tokens


def tokens(*words: str | None, rows: int | None = None) -> Tokens:
    """Words by row; None for a row that is no token's."""
    ids = {word: row for row, word in enumerate(words) if word is not None}
    return Tokens(ids=ids, added=(), rows=rows or len(words))


MODELS = {
    "base": tokens("x", "y", "z"),
    "first": tokens("y", "x", "z", "new", "both"),
    "second": tokens("x", "both", "y", "z", rows=8),
}
OUTPUT = {"x": 0, "y": 1, "z": 2, "new": 3, "both": 4}


def plan(output: dict[str, int] = OUTPUT, *, stated: Any = None, **options: Any) -> RowPlan:
    spec = TokenizerSpec.model_validate({"tokens": stated or {}})
    return plan_rows(output, MODELS, stated=spec.tokens, **{"base": "base", **options})


def filled(of: RowPlan) -> dict[int, dict[str, int]]:
    """Row of the result -> donor -> its row."""
    return {
        int(place): dict(zip(fill.donors, rows.tolist(), strict=True))
        for fill in of.fills
        for place, rows in zip(fill.ids, fill.rows, strict=True)
    }


def test_a_model_s_own_rows_are_taken_by_token() -> None:
    made = plan()
    assert made.own["base"].tolist() == [0, 1, 2, -1, -1]
    assert made.own["first"].tolist() == [1, 0, 2, 3, 4]
    assert made.own["second"].tolist() == [0, 2, 3, -1, 1]


def test_what_a_model_lacks_is_given_by_the_one_that_has_it_or_by_all_that_do() -> None:
    assert filled(plan()) == {3: {"first": 3}, 4: {"first": 4, "second": 1}}


def test_what_the_base_has_it_gives() -> None:
    assert filled(plan(base="second"))[4] == {"second": 1}
    assert filled(plan(base=None))[4] == {"first": 4, "second": 1}


def test_a_token_that_no_model_has_is_zeros() -> None:
    assert filled(plan({**OUTPUT, "none": 5}))[5] == {}


@pytest.mark.parametrize(
    ("source", "donors"),
    [
        ("second", {"second": 3}),
        ({"kind": "zero"}, {}),
        ({"kind": "model_token", "model": "first", "token": "new"}, {"first": 3}),
        ({"kind": "model_token", "model": "second", "token_id": 7}, {"second": 7}),
    ],
)
def test_a_stated_row_counts_for_all_models_only_where_it_is_forced(
    source: object, donors: dict[str, int]
) -> None:
    assert 2 not in filled(plan(stated={"z": {"source": source}}))
    forced = plan(stated={"z": {"source": source, "force": True}})
    assert filled(forced)[2] == donors
    assert [rows[2] for rows in forced.own.values()] == [-1, -1, -1]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("third", "third is not among the merged models; name one of base, first, second"),
        ("base", "base has no token 'new'; name a model that has it"),
        ({"kind": "model_token", "model": "base", "token": "q"}, "base has no token 'q'"),
        ({"kind": "model_token", "model": "second", "token_id": 8}, "second has no row 8; give"),
    ],
)
def test_a_row_that_is_not_there_is_refused(source: object, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(stated={"new": {"source": source}})
    assert str(caught.value).startswith(f"tokenizer.tokens.new.source: {said}")


@pytest.mark.parametrize(("multiple", "count"), [(1, 5), (5, 5), (4, 8), (64, 64)])
def test_rows_beyond_the_tokens_fill_up_to_a_multiple(multiple: int, count: int) -> None:
    made = plan(multiple_of=multiple)
    assert made.count == count
    assert made.spare.tolist() == list(range(5, count))
    assert all(np.all(rows[5:] == -1) for rows in made.own.values())


def test_a_gap_in_the_numbers_is_a_row_without_a_token() -> None:
    made = plan({"x": 0, "y": 3})
    assert (made.count, made.spare.tolist()) == (4, [1, 2])

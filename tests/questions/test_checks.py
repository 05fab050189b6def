"""Every check is a sentence: what is wrong with the questions, where, and what to do."""

from __future__ import annotations

import sys

import pytest

from evomerge.evaluate import Split
from evomerge.job import SplitSpec
from evomerge.questions.checks import (
    Check,
    check_answers,
    check_enough,
    check_examples,
    check_lengths,
    check_similar,
    distinct_items,
    half_width,
    items_needed,
)
from evomerge.questions.items import Item


def item(number: int, question: str, answer: str | int, *choices: str) -> Item:
    return Item(place=f"line {number}", question=question, answer=answer, choices=choices)


def named(checks: list[Check], name: str) -> Check:
    (found,) = (check for check in checks if check.name == name)
    return found


def test_items_that_are_there_twice_are_left_out() -> None:
    items = (item(2, "a", "1"), item(3, "b", "1"), item(4, "a", "1"), item(5, "a", "2"))
    kept, checks = distinct_items(items)
    assert [each.place for each in kept] == ["line 2", "line 3", "line 5"]
    assert checks[0].sentence == "1 row repeats an earlier one; left out: line 4"
    assert distinct_items(kept)[1][0].level == "ok"


def test_one_question_with_two_answers_is_a_contradiction() -> None:
    items = [item(2, "A cat?", "1"), item(3, "b", "1"), item(4, "a cat", "2")]
    check = named(check_answers(items, "exact"), "contradictions")
    assert check.level == "warning" and "line 2 and line 4" in check.sentence
    assert named(check_answers(items[:2], "exact"), "contradictions").level == "ok"


def test_shuffled_choices_of_one_question_do_not_contradict() -> None:
    items = [item(2, "a", 0, "x", "y"), item(3, "a", 1, "y", "x"), item(4, "a", 0, "x", "z")]
    assert named(check_answers(items, "choices"), "contradictions").level == "ok"
    other = [*items, item(5, "a", 0, "y", "x")]
    check = named(check_answers(other, "choices"), "contradictions")
    assert "line 2 and line 5" in check.sentence


def test_an_answer_that_is_right_for_most_items_is_told() -> None:
    items = [item(number, f"q{number}", "yes" if number < 8 else "no") for number in range(10)]
    check = named(check_answers(items, "exact"), "constant answer")
    assert "'yes' is right for 80%" in check.sentence
    different = [item(2, "a", "yes"), item(3, "b", "no")]
    assert [check.name for check in check_answers(different, "exact")] == ["contradictions"]


def test_the_place_of_the_right_choice_is_told_where_it_is_nearly_always_the_same() -> None:
    items = [item(n, f"q{n}", 0 if n < 30 else 1, f"a{n}", f"b{n}", f"c{n}") for n in range(40)]
    check = named(check_answers(items, "choices"), "place of the answer")
    assert "choice 1 is the right one in 75%" in check.sentence
    twice = [item(2, "q", 0, "x", "x")]
    assert "line 2" in named(check_answers(twice, "choices"), "equal choices").sentence


def test_formulas_are_told() -> None:
    items = [item(2, "a", "=SUM(A1)"), item(3, "b", "=B2"), item(4, "c", "= x")]
    assert "line 2, line 3 look" in named(check_answers(items, "exact"), "formulas").sentence


def test_only_questions_on_two_sides_of_the_split_are_a_leak() -> None:
    items = [item(2, "What is a cat?", "1"), item(3, "b", "1"), item(4, "what is a CAT", "1")]
    apart: list[Split] = ["search", "search", "test"]
    check = check_similar(items, apart)
    assert check.level == "warning"
    assert "line 2 (search) and line 4 (test)" in check.sentence
    assert check_similar(items, ["test", "search", "test"]).level == "ok"


def test_a_question_that_is_like_several_others_counts_once() -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    items = [item(n, f"{words} {word}", "1") for n, word in enumerate(("cat", "cut", "cot"))]
    check = check_similar(items, ["search", "search", "test"])
    assert check.sentence.startswith("1 question is almost the same")


def test_an_item_like_a_few_shot_example_is_a_leak() -> None:
    examples = [item(2, "What is a cat?", "1")]
    items = [item(3, "what is a cat", "1"), item(4, "what is a dog", "1")]
    (check,) = check_examples(items, examples)
    assert check.level == "warning" and "answer every prompt shows: line 3;" in check.sentence
    assert check_examples(items[1:], examples)[0].level == "ok"
    assert check_examples(items, []) == []


@pytest.mark.parametrize("within", [0.05, 0.1])
def test_the_items_needed_give_the_interval_that_was_wished(within: float) -> None:
    needed = items_needed(within)
    assert half_width(needed) <= within < half_width(round(0.93 * needed))


def test_too_few_items_are_told_with_the_number_that_is_needed() -> None:
    splits: list[Split] = [*["search"] * 60, *["validation"] * 20, *["test"] * 20]
    check = check_enough(splits, SplitSpec(), 0.05)
    assert check.level == "warning"
    assert "20 test items" in check.sentence and "±0.05 needs about 3" in check.sentence
    assert check_enough(splits * 20, SplitSpec(), 0.05).level == "ok"
    assert check_enough(splits, SplitSpec(), None).level == "note"
    assert check_enough(["test"], SplitSpec(), None).sentence.startswith("1 item leaves none for")
    assert "none for test" in check_enough(["search", "validation"], SplitSpec(), None).sentence


def test_items_longer_than_a_models_context_are_named() -> None:
    check = check_lengths("m", [5, 20, 30], ["line 2", "line 3", "line 4"], 16)
    assert check.level == "warning"
    assert "2 items are longer than the 16 tokens of m" in check.sentence
    assert "line 3, line 4" in check.sentence
    assert check.sentence.endswith("; shorten the texts"), "choices have no answer to shorten"
    assert check_lengths("m", [5], ["line 2"], 16).level == "ok"
    some = check_lengths("m", [20, 30], ["line 3", "line 4"], 16, whole=False)
    assert "at least 2 items are longer" in some.sentence
    for needed, mend in [(2, ", or lower --max-tokens to 2"), (3, "")]:
        # The longest prompt has 14 tokens, so 2 of 16 are left.
        check = check_lengths("m", [22, 18], ["line 2", "line 3"], 16, limit=8, needed=needed)
        assert check.sentence.endswith(f"; shorten the texts{mend}")
    assert "states no limit" in check_lengths("m", [5], ["line 2"], sys.maxsize).sentence

"""Every form: answers that have it and answers that nearly do."""

from __future__ import annotations

import pytest

from evomerge.conditions import parse_conditions
from evomerge.conditions.form import FORMATS

CASES = (
    ({"format": "regex", "pattern": r"^\d+ (個|eggs)$"}, ["18 個", "3 eggs"], ["18", "a 3 eggs"]),
    (
        {"format": "number"},
        ["18", " 1,250.5\n", "-3", "−3", "$70,000", "12%", "18.", "１８"],
        ["18 eggs", "1,25", "", "1 2", "answer: 3", "."],
    ),
    (
        {"format": "boxed"},
        [r"So \boxed{18}.", r"\boxed{\frac{1}{2}}", r"$\boxed {7}$"],
        [r"\boxed{}", "18", r"\boxed 18", r"\boxed{ }"],
    ),
    (
        {"format": "json"},
        ['{"a": 1}', "[1, 2]", '```json\n{"a": 1}\n```'],
        ["{a: 1}", "3", '{"a":'],
    ),
    (
        {"format": "json", "keys": ["name", "age"]},
        ['{"age": 3, "name": "x"}', '```\n{"name": 1, "age": null}\n```'],
        ['{"name": 1}', '{"name": 1, "age": 2, "more": 3}', '["name", "age"]', 'Sure: {"name": 1}'],
    ),
    (
        {"format": "bullets", "at_least": 2, "at_most": 3},
        ["- a\n- b", "1. a\n2) b\n 3. c", "・あ\n・い", "Intro:\n* a\n* b"],
        ["- a", "- a\n- b\n- c\n- d", "-a-b", "**bold**\n**more**", "-\n-\n-"],
    ),
    (
        {"format": "no_preamble"},
        ["The sky is blue.", "空は青い。", "Surely not.", "はいいろの空", "Clarodelta"],
        [
            "Sure, here is a poem:",
            "もちろんです。空は",
            "Here's the answer",
            "Natürlich! Der",
            "",
            "はい、",
        ],
    ),
    ({"format": "contains", "texts": ["Sky", "青"]}, ["the SKY is 青い"], ["the sky", "青"]),
    ({"format": "lacks", "texts": [",", "very"]}, ["A big dog"], ["a, b", "Very big", "", " "]),
    (
        {"format": "begins", "text": "In short"},
        ["In short, no", " In short"],
        ["in short", "So In short"],
    ),
    (
        {"format": "ends", "text": "以上です。"},
        ["そうです。以上です。\n"],
        ["以上です", "以上です。また。"],
    ),
    ({"format": "lowercase"}, ["all small 3.", "straße"], ["One capital", "123", "日本"]),
    ({"format": "uppercase"}, ["ALL BIG, 3!"], ["ONE small", "123", ""]),
)


@pytest.mark.parametrize(("setting", "kept", "broken"), CASES, ids=lambda part: str(part)[:40])
def test_a_form_is_told_from_what_is_nearly_it(
    setting: dict[str, object], kept: list[str], broken: list[str]
) -> None:
    (condition,) = parse_conditions(setting)
    assert [text for text in kept if not condition.kept(text)] == []
    assert [text for text in broken if condition.kept(text)] == []


def test_every_form_is_tried_here() -> None:
    assert {str(setting["format"]) for setting, _, _ in CASES} == set(FORMATS)


def test_deeply_nested_json_is_broken_and_no_failure() -> None:
    (condition,) = parse_conditions({"format": "json"})
    assert not condition.kept("[" * 100_000)

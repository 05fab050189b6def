"""Instruction following: items that are reproducible, can be kept, and are scored by conditions."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from evomerge.conditions import parse_conditions
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer
from tests.evals.scripted import EVALS, import_file, score_by_both

FOLDER = EVALS / "instructions"
ITEMS = [
    json.loads(line)
    for line in (FOLDER / "data/instructions.jsonl").read_text(encoding="utf-8").splitlines()
]


def test_the_items_are_what_the_generator_writes() -> None:
    generate = import_file(FOLDER / "generate.py")
    written = (FOLDER / "data/instructions.jsonl").read_text(encoding="utf-8")
    assert generate.text() == written


def test_every_item_is_asked_once_and_every_language_often() -> None:
    assert len({item["prompt"] for item in ITEMS}) == len(ITEMS) == 272
    assert Counter(item["language"] for item in ITEMS) == {"en": 96, "ja": 80, "es": 48, "de": 48}


def test_every_items_conditions_can_be_read_and_are_said_once() -> None:
    for item in ITEMS:
        settings = json.loads(item["conditions"])
        assert parse_conditions(settings)
        kinds = [setting.get("format") or next(iter(setting)) for setting in settings]
        assert len(set(kinds)) == len(kinds), item


def test_conditions_are_used_about_equally_often() -> None:
    """Each language's first instructions go round, so that none decides the score alone."""
    for language, times in (("en", range(8, 11)), ("ja", range(8, 10)), ("es", range(6, 8))):
        first = Counter(
            json.dumps(json.loads(item["conditions"])[0])
            for item in ITEMS
            if item["language"] == language
        )
        assert set(first.values()) <= set(times), (language, first)


ANSWERS = {
    "words of at most 40": (
        "Describe a rainy morning in a small town. Use at most 40 words.",
        "Rain falls on the roofs, and the baker lights his shop before anyone is awake.",
        1.0,
        1.0,
    ),
    "the same said too long": (
        "Explain how rivers are formed. Use at most 40 words.",
        "Water runs from the hills to the sea and takes the easiest way it can find. " * 4,
        0.0,
        0.5,
    ),
    "four bullets without commas": (
        "Describe your idea of a perfect picnic. Answer as a list of exactly four bullet points. "
        "Do not use any commas.",
        "- A shady meadow\n- Fresh bread and cheese\n- Good friends\n- A long walk home, slowly",
        0.0,
        2 / 3,
    ),
    "Japanese in two sentences": (
        "図書館とは何かを、見たことのない人に説明してください。ちょうど二文で答えてください。",
        "図書館は本を借りられる場所です。誰でも静かに読むことができます。",
        1.0,
        1.0,
    ),
    "English where it was asked for": (
        "Beschreibe, wie man Brot backt. Antworte nur auf Englisch.",
        "Mix flour with water and yeast, let the dough rise, and bake it until it is brown.",
        1.0,
        1.0,
    ),
}


def test_an_answer_is_scored_by_the_conditions_of_its_item() -> None:
    places = {item["prompt"]: place for place, item in enumerate(ITEMS)}
    cases = sorted(ANSWERS.values(), key=lambda case: places[case[0]])
    stock, ours = score_by_both(
        "instructions", {places[prompt]: answer for prompt, answer, *_ in cases}
    )
    assert ours == stock
    assert ours["kept"] == tuple(kept for *_, kept, _ in cases)
    assert ours["kept_share"] == pytest.approx([share for *_, share in cases])


def test_one_language_can_be_asked_for_alone() -> None:
    suite = TaskSuite.load(["instructions_en", "instructions_ja"], tokenizer=word_tokenizer())
    assert (suite.size("instructions_en"), suite.size("instructions_ja")) == (96, 80)

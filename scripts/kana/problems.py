"""The problems: what is asked, what is right, and which of them no model may train on.

A problem (two operands, three numbers, a sequence) belongs to evaluation, development or training
by a hash of its numbers, whatever the language and the order in which it is asked. So a problem
that is evaluated in Japanese is not trained in English either.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from kana.words import HIGHEST, Language, spell

Part = Literal["evaluation", "development", "training"]
Key = tuple[str, int, int, int]

LARGEST_OPERAND = 120
LARGEST_STEP = 30
EVALUATED_ITEMS = 4_000
_POSITIONS = {"en": ("first", "second", "third"), "ja": ("さいしょ", "まんなか", "さいご")}
_OPERATORS = {"en": {"+": "plus", "-": "minus"}, "ja": {"+": "たす", "-": "ひく"}}
# Shares of each kind's problems that are evaluated and that are used to tune the training.
_SHARES = {"calculate": (0.28, 0.05), "compare": (0.03, 0.03), "count": (0.28, 0.05)}


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question, its answer, and the answer's spelling in the other language."""

    question: str
    answer: str
    other: str


def draw_fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def part_of(key: Key) -> Part:
    """The part to which a problem belongs."""
    evaluated, developed = _SHARES[_kind(key)]
    fraction = draw_fraction(repr(key))
    if fraction < evaluated:
        return "evaluation"
    return "development" if fraction < evaluated + developed else "training"


def _kind(key: Key) -> str:
    return "calculate" if key[0] in "+-" else key[0]


def _calculations() -> Iterator[Key]:
    for low in range(LARGEST_OPERAND + 1):
        for high in range(low, LARGEST_OPERAND + 1):
            yield ("+", low, high, 0)
            yield ("-", high, low, 0)


def _comparisons() -> Iterator[Key]:
    for low, middle, high in combinations(range(100), 3):
        yield ("compare", low, middle, high)


def _sequences() -> Iterator[Key]:
    for step in range(1, LARGEST_STEP + 1):
        for start in range(HIGHEST + 1 - 3 * step):
            yield ("count", start, step, 0)
            yield ("count", start + 3 * step, -step, 0)


def keys_of(kind: str, part: Part) -> list[Key]:
    """Every problem of a kind ("calculate", "compare", "count") that belongs to a part."""
    universe = {"calculate": _calculations, "compare": _comparisons, "count": _sequences}[kind]
    return [key for key in universe() if part_of(key) == part]


def ask_arithmetic(key: Key, language: Language, rng: random.Random) -> Item:
    """ "forty two plus seven equals" -> "forty nine"."""
    operator, left, right, _ = key
    if operator == "+" and rng.random() < 0.5:
        left, right = right, left
    result = left + right if operator == "+" else left - right
    word = _OPERATORS[language][operator]
    last = "equals" if language == "en" else "は"
    return _numeric(
        f"{spell(left, language)} {word} {spell(right, language)} {last}", result, language
    )


def ask_counting(key: Key, language: Language, rng: random.Random) -> Item:
    """ "three , six , nine then" -> "twelve"."""
    del rng
    _, start, step, _ = key
    comma, last = (" , ", " then") if language == "en" else (" 、 ", " つぎ は")
    terms = comma.join(spell(start + index * step, language) for index in range(3))
    return _numeric(terms + last, start + 3 * step, language)


def ask_comparison(key: Key, language: Language, rng: random.Random) -> Item:
    """ "which is largest nine or six or seven ?" -> "first"."""
    numbers = list(key[1:])
    rng.shuffle(numbers)
    largest = rng.random() < 0.5
    position = numbers.index(max(numbers) if largest else min(numbers))
    words = [spell(number, language) for number in numbers]
    if language == "en":
        adjective = "largest" if largest else "smallest"
        question = f"which is {adjective} {' or '.join(words)} ?"
    else:
        adjective = "おおきい" if largest else "ちいさい"
        question = f"{' と '.join(words)} で いちばん {adjective} の は"
    other: Language = "ja" if language == "en" else "en"
    return Item(
        question=question, answer=_POSITIONS[language][position], other=_POSITIONS[other][position]
    )


def ask_translation(key: Key, language: Language, rng: random.Random) -> Item:
    """ "forty two plus seven in japanese is" -> "よんじゅう に たす なな", and back from "ja"."""
    operator, left, right, _ = key
    if operator == "+" and rng.random() < 0.5:
        left, right = right, left
    texts = {
        which: f"{spell(left, which)} {_OPERATORS[which][operator]} {spell(right, which)}"
        for which in ("en", "ja")
    }
    other: Language = "ja" if language == "en" else "en"
    last = "in japanese is" if language == "en" else "えいご で は"
    return Item(question=f"{texts[language]} {last}", answer=texts[other], other=texts[language])


def _numeric(question: str, result: int, language: Language) -> Item:
    other: Language = "ja" if language == "en" else "en"
    return Item(question=question, answer=spell(result, language), other=spell(result, other))


@dataclass(frozen=True, kw_only=True)
class Skill:
    """One thing to be good at: a kind of problem, asked in one language or in both."""

    kind: str
    languages: tuple[Language, ...]
    ask: Callable[[Key, Language, random.Random], Item]

    def draw(self, keys: list[Key], rng: random.Random) -> Item:
        """A random item about one of the keys."""
        return self.ask(rng.choice(keys), rng.choice(self.languages), rng)


SKILLS = {
    "arithmetic_en": Skill(kind="calculate", languages=("en",), ask=ask_arithmetic),
    "arithmetic_ja": Skill(kind="calculate", languages=("ja",), ask=ask_arithmetic),
    "comparison_en": Skill(kind="compare", languages=("en",), ask=ask_comparison),
    "comparison_ja": Skill(kind="compare", languages=("ja",), ask=ask_comparison),
    "counting_en": Skill(kind="count", languages=("en",), ask=ask_counting),
    "counting_ja": Skill(kind="count", languages=("ja",), ask=ask_counting),
    "translation": Skill(kind="calculate", languages=("en", "ja"), ask=ask_translation),
}


def stream(shares: dict[str, float], seed: int) -> Iterator[Item]:
    """Endless training items, the skills in the given shares; never an evaluated problem."""
    rng = random.Random(seed)
    kinds = {SKILLS[name].kind for name in shares}
    keys = {kind: keys_of(kind, "training") for kind in sorted(kinds)}
    names, weights = list(shares), list(shares.values())
    while True:
        skill = SKILLS[rng.choices(names, weights)[0]]
        yield skill.draw(keys[skill.kind], rng)


def held_out(name: str, part: Part, limit: int) -> list[Item]:
    """The first `limit` problems of a part in hash order, each asked once, in a fixed way."""
    skill = SKILLS[name]
    keys = sorted(keys_of(skill.kind, part), key=lambda key: draw_fraction(repr(key)))[:limit]
    # Neighbours in hash order say nothing of each other, so a prefix is a random sample.
    rng = random.Random(f"{name} {part}")
    return [skill.draw([key], rng) for key in keys]

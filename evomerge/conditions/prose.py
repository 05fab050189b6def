r"""The prose of an answer, without formulas, code, links and numbers.

These say nothing about its language: `x = \frac{1}{2}` looks like English to a detector that counts
letters, whatever the language of its sentence is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Literal

from evomerge.conditions.condition import Limited

_NOT_PROSE = re.compile(
    r"""
    ```.*?(?:```|\Z)                                    # fenced code, closed or cut off
    | `[^`\n]*`                                         # code in a line
    | \$\$.*?\$\$                                       # displayed formulas
    | \\\[.*?\\\]
    | \\begin\{(?P<name>\w+\*?)\}.*?\\end\{(?P=name)\}
    | \\\(.*?\\\)                                       # formulas in a line
    | \$(?=[^$\n]*[\\^_={}])[^$\n]*\$                   # not the space between two prices
    | <<[^>\n]*>>                                       # GSM8K's calculator notes
    | https?://[^\s\u3000-\u9fff]+
    | \\[a-zA-Z]+                                       # commands outside formulas
    """,
    re.VERBOSE | re.DOTALL,
)
# A full stop inside 3.14 or example.com ends no sentence; a Japanese or Chinese one always does.
_SENTENCE_END = re.compile(r"[.!?…]+(?=[\s\"'”’)\]*]|$)|[。！？｡]+")
_NOT_LETTERS = re.compile(r"[\d_]|[^\w\s'’]")

_SCRIPTS = {
    "CJK": "han",
    "HIRAGANA": "kana",
    "KATAKANA": "kana",
    "KATAKANA-HIRAGANA": "kana",
    "HALFWIDTH": "kana",
    "HANGUL": "hangul",
}
"""Scripts by the first word of their characters' Unicode names; others are named by that word."""


def prose(text: str) -> str:
    """The words of a text, with single spaces, without formulas, code, links, digits and signs."""
    return " ".join(_NOT_LETTERS.sub(" ", _NOT_PROSE.sub(" ", text)).split())


def split_sentences(text: str) -> list[str]:
    """A text cut at the ends of its sentences; each piece has a letter or a digit.

    The end marks are left out. An abbreviation's full stop counts as an end.
    """
    return [piece for piece in _SENTENCE_END.split(text) if any(c.isalnum() for c in piece)]


def prose_sentences(text: str) -> list[str]:
    """The prose of each sentence of a text; the end of a line ends a sentence too."""
    lines = _NOT_PROSE.sub(" ", text).splitlines()
    return [prose(piece) for line in lines for piece in split_sentences(line)]


def scripts(text: str) -> frozenset[str]:
    """The scripts of a text's letters: `latin`, `han`, `kana`, `hangul`, `cyrillic`, ..."""
    first_words = (
        unicodedata.name(letter, "").partition(" ")[0] for letter in set(text) if letter.isalpha()
    )
    return frozenset(_SCRIPTS.get(word, word.lower()) for word in first_words if word)


# The length of an answer in characters, words, sentences or lines.


Unit = Literal["characters", "words", "sentences", "lines"]


class Length(Limited):
    """The length of the answer in a unit is limited.

    characters: all but white space. words: separated by white space, so limit Japanese, Chinese and
    Thai text in characters. sentences: ended by . ! ? … 。 and similar marks; a last sentence
    without an end counts too. lines: those that are not empty.
    """

    length: Unit

    def kept(self, text: str) -> bool:
        """Whether the text's length is within the limits."""
        return self.within(_COUNTS[self.length](text))


_COUNTS: Mapping[Unit, Callable[[str], int]] = {
    "characters": lambda text: sum(not letter.isspace() for letter in text),
    "words": lambda text: sum(any(c.isalnum() for c in word) for word in text.split()),
    "sentences": lambda text: len(split_sentences(text)),
    "lines": lambda text: sum(bool(line.strip()) for line in text.splitlines()),
}

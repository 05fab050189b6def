"""The length of an answer in characters, words, sentences or lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from evomerge.conditions.limits import Limited
from evomerge.conditions.prose import split_sentences

Unit = Literal["characters", "words", "sentences", "lines"]


class Length(Limited):
    """The answer has at least and at most so many of a unit.

    characters: all but white space. words: what white space parts, so Japanese, Chinese and Thai
    text is to be limited in characters. sentences: ended by . ! ? … 。 and their like; a last one
    that has no end counts too. lines: those that are not empty.
    """

    length: Unit

    def kept(self, text: str) -> bool:
        """Whether the text's length lies between the limits."""
        return self.within(_COUNTS[self.length](text))


_COUNTS: Mapping[Unit, Callable[[str], int]] = {
    "characters": lambda text: sum(not letter.isspace() for letter in text),
    "words": lambda text: sum(any(c.isalnum() for c in word) for word in text.split()),
    "sentences": lambda text: len(split_sentences(text)),
    "lines": lambda text: sum(bool(line.strip()) for line in text.splitlines()),
}

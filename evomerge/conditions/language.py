"""The language of an answer, by py3langid's model, which comes with the library.

Identified is the language of the prose of a whole text, among the languages that are likely here: a
choice among all 140 that the model knows calls `18 eggs` Hungarian.
"""

from __future__ import annotations

import functools

from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import Field, model_validator

from evomerge.conditions.condition import Condition
from evomerge.conditions.prose import prose, prose_sentences, scripts

LIKELY = (
    *("ar", "bn", "cs", "de", "el", "en", "es", "fa", "fr", "he", "hi", "hu", "id", "it", "ja"),
    *("ko", "nl", "pl", "pt", "ro", "ru", "sv", "sw", "ta", "te", "th", "tr", "uk", "vi", "zh"),
)
"""The languages that language models are mostly tuned and measured for."""

_HAN_TO_TELL = 3
_LETTERS_TO_TELL = 7
"""Below these an answer (`東京`, `Coffee`) belongs to every language of its script."""

_SENTENCE_LATIN_LETTERS = 20
_SENTENCE_OTHER_LETTERS = 7
"""Below these the language of a sentence by itself is not judged (`Naomi scored points`)."""

_SCRIPTS_OF = {
    "ar": {"arabic"},
    "bn": {"bengali"},
    "el": {"greek"},
    "fa": {"arabic"},
    "he": {"hebrew"},
    "hi": {"devanagari"},
    "ja": {"kana", "han"},
    "ko": {"hangul"},
    "ru": {"cyrillic"},
    "ta": {"tamil"},
    "te": {"telugu"},
    "th": {"thai"},
    "uk": {"cyrillic"},
    "zh": {"han"},
}
"""Of the likely languages, those that are not written in Latin letters."""


class Language(Condition):
    """The prose of an answer is in this language (ISO 639-1: `ja`).

    among: the languages it may be in; the more there are, the more short answers are mistaken. Of
    a text in two languages the one with more evidence counts. A text without letters (`18`) is in
    no language. One that is too short to tell the languages of a script apart (up to two Chinese
    characters, or six letters) is taken for this one where the script is its own.

    throughout: every sentence must be in the language too, where it is long enough to tell; else a
    text that begins in one language and ends in another is kept in one of them.
    """

    language: str
    throughout: bool = False
    among: tuple[str, ...] = Field(default=LIKELY, min_length=2)

    @model_validator(mode="after")
    def _known(self) -> Language:
        unknown = sorted({self.language, *self.among} - known_languages())
        if unknown:
            raise ValueError(f"{unknown[0]} is no language known here; use a code like ja, en, zh")
        return self

    def kept(self, text: str) -> bool:
        """Whether the text is in the language."""
        words = prose(text)
        written = scripts(words)
        if not written:
            return False
        fewest = _HAN_TO_TELL if written == {"han"} else _LETTERS_TO_TELL
        if sum(letter.isalpha() for letter in words) < fewest and self.language in LIKELY:
            return written <= _SCRIPTS_OF.get(self.language, {"latin"})
        return self._identified(words) and not (self.throughout and self._strays(text))

    def _identified(self, words: str) -> bool:
        return identify_language(words, frozenset((*self.among, self.language))) == self.language

    def _strays(self, text: str) -> bool:
        """Whether some sentence is in another language."""
        return any(
            _tells(sentence) and not self._identified(sentence)
            for sentence in prose_sentences(text)
        )


def _tells(sentence: str) -> bool:
    letters = sum(letter.isalpha() for letter in sentence)
    latin = "latin" in scripts(sentence)
    return letters >= (_SENTENCE_LATIN_LETTERS if latin else _SENTENCE_OTHER_LETTERS)


def identify_language(text: str, among: frozenset[str]) -> str:
    """The likeliest of these languages; the same text always gives the same one."""
    return str(_identifier(among).classify(text)[0])


@functools.cache
def known_languages() -> frozenset[str]:
    """Codes of the languages that the model tells apart."""
    return frozenset(_identifier(None).labels)


@functools.cache
def _identifier(among: frozenset[str] | None) -> LanguageIdentifier:
    """Reading the model takes 0.8 s, so every set of languages is cut from one that was read."""
    if among is None:
        return LanguageIdentifier.from_model_file(MODEL_FILE)
    whole = _identifier(None)
    narrowed = LanguageIdentifier(
        whole.nb_ptc,
        whole.nb_pc,
        whole.nb_classes,
        whole.tk_nextmove,
        whole.tk_output,
        tk_row=whole.tk_row,
    )
    narrowed.set_languages(sorted(among))
    return narrowed

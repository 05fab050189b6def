"""The condition on the language of an answer, identified by the model in the package py3langid.

The language of the prose of a whole text is identified, among likely languages only. Among all 140
languages of the model, `18 eggs` would be Hungarian.
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
"""The languages that most language models are tuned and measured for."""

_HAN_TO_TELL = 3
_LETTERS_TO_TELL = 7
"""An answer with fewer of these (`東京`, `Coffee`) belongs to every language of its script."""

_SENTENCE_LATIN_LETTERS = 20
_SENTENCE_OTHER_LETTERS = 7
"""The language of a sentence with fewer of these is not identified (`Naomi scored points`)."""

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
"""Scripts of the likely languages that are not written in Latin letters."""


class Language(Condition):
    """The prose of an answer is in this language (ISO 639-1: `ja`).

    among: the languages to choose from; with more of them, short answers are mistaken more often.
    If a text is in two languages, the one with more evidence counts. A text without letters (`18`)
    is in no language. A text that is too short to tell the languages of a script apart (up to two
    Chinese characters, or six letters) counts as this language if the language uses that script.

    throughout: every sentence that is long enough must be in the language too. Otherwise a text
    that begins in one language and ends in another counts as one of them.
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
    """The most likely of these languages; the same text always gives the same one."""
    return str(_identifier(among).classify(text)[0])


@functools.cache
def known_languages() -> frozenset[str]:
    """Codes of the languages that the model tells apart."""
    return frozenset(_identifier(None).labels)


@functools.cache
def _identifier(among: frozenset[str] | None) -> LanguageIdentifier:
    """The identifier of a set of languages; the model is read once, because that takes 0.8 s."""
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

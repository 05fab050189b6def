"""Number words in English and Japanese, and the word-level tokenizer made of them.

Knows spelling and tokens, not what is asked about the numbers (see `problems`).
"""

from __future__ import annotations

from typing import Literal

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

Language = Literal["en", "ja"]

HIGHEST = 299
SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ENGLISH_SMALL = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_ENGLISH_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_JAPANESE_DIGITS = _words("ぜろ いち に さん よん ご ろく なな はち きゅう")
_JAPANESE_TENS = ("じゅう", *(digit + "じゅう" for digit in _JAPANESE_DIGITS[2:]))
_JAPANESE_HUNDREDS = ("ひゃく", "にひゃく")
_ENGLISH_TERMS = _words(
    "hundred plus minus equals which is largest smallest or ? , then in japanese first second third"
)
_JAPANESE_TERMS = _words(
    "たす ひく は と で いちばん おおきい ちいさい の 、 つぎ えいご さいしょ まんなか さいご"
)
VOCABULARY = (
    *SPECIAL_WORDS,
    *_ENGLISH_SMALL,
    *_ENGLISH_TENS,
    *_ENGLISH_TERMS,
    *_JAPANESE_DIGITS,
    *_JAPANESE_TENS,
    *_JAPANESE_HUNDREDS,
    *_JAPANESE_TERMS,
)


def spell(number: int, language: Language) -> str:
    """Words of a whole number in [0, HIGHEST], separated by single spaces."""
    assert 0 <= number <= HIGHEST, number
    return _spell_english(number) if language == "en" else _spell_japanese(number)


def _spell_english(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [_ENGLISH_SMALL[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        tens, units = divmod(rest, 10)
        words.append(_ENGLISH_TENS[tens - 2])
        if units:
            words.append(_ENGLISH_SMALL[units])
    elif rest or not hundreds:
        words.append(_ENGLISH_SMALL[rest])
    return " ".join(words)


def _spell_japanese(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    tens, units = divmod(rest, 10)
    words = [_JAPANESE_HUNDREDS[hundreds - 1]] if hundreds else []
    if tens:
        words.append(_JAPANESE_TENS[tens - 1])
    if units or not number:
        words.append(_JAPANESE_DIGITS[units])
    return " ".join(words)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word, `<bos>` before every text and padding on the left."""
    ids = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", ids["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=64,
    )

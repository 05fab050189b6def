"""The language of an answer, on short and long texts with numbers, formulas and code in them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from evomerge.conditions.language import Language, known_languages
from evomerge.conditions.prose import prose

ANSWERS = {
    "ja": (
        "答えは18です。",
        "はい",
        "18個",
        "まず16から3を引くと13になります。13-4=9なので、9×2=18ドルです。",
        r"\[ 16 - 3 - 4 = 9 \] よって、$9 \times 2 = 18$ ドルになります。",
        "したがって、\n\\begin{align*} 3 \\times 3 &= 9 \\\\ 9 x &= 540 \\end{align*}\n答え：540",
        "残り：8個。売上：$64",
        "120÷4=30、30×2=60。答え60",
        "ウェンディ",
    ),
    "en": (
        "The answer is 18.",
        "Yes",
        "18 eggs",
        "First, 16 - 3 = 13. Then 13 - 4 = 9, so 9 * 2 = 18 dollars.",
        "So 3*3=<<3*3=9>>9 sprints, 9*60=540\n#### 540",
        "x = 5, so y = 2x + 3 = 13. Therefore 13.",
        "```python\nprint('答え')\n```\nThis prints the answer.",
    ),
    "zh": ("答案是18。", "首先，16减去3等于13。然后13-4=9，所以9×2=18美元。", "学生一共有45人。"),
    "ko": (
        "정답은 18입니다.",
        "먼저 16에서 3을 빼면 13입니다. 13-4=9이므로 9×2=18달러입니다.",
        "네",
    ),
    "es": (
        "La respuesta es 18.",
        r"La respuesta es $\boxed{70000}$.",
        "En total son 540 metros",
        "Quedan 8. Ingresos: 64 dólares",
    ),
    "de": ("Die Antwort ist 18.", "Insgesamt 540 Meter", "Da ist eine Katze.", "18 Eier"),
}
LONG_ENOUGH = tuple(
    (language, text)
    for language, texts in ANSWERS.items()
    for text in texts
    if sum(letter.isalpha() for letter in prose(text)) >= 8
)


@pytest.mark.parametrize("code", ANSWERS)
def test_an_answer_is_in_the_language_it_is_written_in(code: str) -> None:
    assert [text for text in ANSWERS[code] if not Language(language=code).kept(text)] == []


@pytest.mark.parametrize(("code", "text"), LONG_ENOUGH, ids=lambda part: part[:12])
def test_a_sentence_is_in_no_other_language(code: str, text: str) -> None:
    others = set(ANSWERS) - {code}
    assert [other for other in others if Language(language=other).kept(text)] == []


@pytest.mark.parametrize(
    "text", ["", "18", "  \n", "$$\\frac{1}{2}$$", "540 + 2 = 542", "```\nx\n```"]
)
def test_an_answer_without_words_is_in_no_language(text: str) -> None:
    assert not any(Language(language=code).kept(text) for code in ANSWERS)


def test_of_two_languages_the_one_with_more_of_the_answer_counts() -> None:
    japanese = (
        "卵は全部で16個あり、そのうち3個を朝食に食べ、4個をマフィンに使います。残りは9個です。"
    )
    english = "She has 16 eggs in all, eats three of them and bakes muffins with four, so 9 remain."
    assert Language(language="ja").kept(f"{japanese}\nThe answer is 18.")
    assert not Language(language="ja").kept(f"{english}\n答えは18です。")
    assert Language(language="en").kept(f"{english}\n答えは18です。")


def test_an_answer_can_be_asked_to_be_in_the_language_throughout() -> None:
    japanese = (
        "卵は全部で16個あり、そのうち3個を朝食に食べ、4個をマフィンに使います。残りは9個です。"
    )
    throughout = Language(language="ja", throughout=True)
    assert throughout.kept(f"{japanese}\nOK. $9 \\times 2 = 18$ (USD)\n答えは18ドルです。")
    for stray in ("So she makes 18 dollars every day.", "所以她每天赚十八美元。"):
        assert Language(language="ja").kept(f"{japanese}\n{stray}")
        assert not throughout.kept(f"{japanese}\n{stray}")


def test_a_word_or_two_is_taken_for_every_language_of_its_script() -> None:
    assert Language(language="ja").kept("東京")
    assert Language(language="zh").kept("東京")
    assert not Language(language="en").kept("東京")
    assert Language(language="en").kept("Coffee")
    assert not Language(language="ja").kept("Coffee")


def test_formulas_code_and_links_say_nothing_about_the_language() -> None:
    text = (
        "価格は $x_1 = \\frac{70000}{2}$ と `compute_price()` から求まります。"
        "https://example.com/the/long/english/path を見てください。"
    )
    assert prose(text) == "価格は と から求まります を見てください"


def test_two_prices_are_no_formula() -> None:
    assert "costs and the other" in prose("One book costs $5 and the other costs $6 today.")


def test_a_language_outside_the_likely_ones_can_be_asked_for() -> None:
    assert Language(language="ca").kept("Ahir vaig anar al mercat amb la meva germana petita.")
    assert not Language(language="ca").kept("I went to the market with my little sister yesterday.")


def test_fewer_languages_to_choose_from_make_fewer_mistakes() -> None:
    text = "En total son 540 metros"
    assert Language(language="es").kept(text)
    assert not Language(language="es", among=tuple(known_languages())).kept(text)


def test_an_unknown_language_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="klingon is no language known here"):
        Language(language="klingon")

"""Settings become conditions, or one line that says what is wrong with them."""

from __future__ import annotations

import pytest

from evomerge.conditions import parse_conditions
from evomerge.conditions.form import Json
from evomerge.conditions.language import Language
from evomerge.conditions.prose import Length
from evomerge.errors import TaskError


def test_each_setting_is_one_condition_in_the_order_written() -> None:
    found = parse_conditions(
        [
            {"language": "ja", "among": ["ja", "en"]},
            {"format": "json", "keys": ["a"]},
            {"length": "words", "at_most": 3},
        ]
    )
    assert found == (
        Language(language="ja", among=("ja", "en")),
        Json(format="json", keys=("a",)),
        Length(length="words", at_most=3),
    )


def test_one_mapping_is_a_list_of_one() -> None:
    assert parse_conditions({"language": "ja"}) == (Language(language="ja"),)


def test_equal_settings_are_read_once() -> None:
    """Task files hand theirs over with every answer."""
    assert parse_conditions({"language": "ja"}) is parse_conditions({"language": "ja"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "expected a list of mappings"),
        ("ja", "expected a list of mappings"),
        (None, "expected a list of mappings"),
        ([{"language": "ja"}, "en"], r"conditions\[1\]: en is no condition"),
        ({"language": "ja", "format": "json"}, "is no condition; give a mapping with one of"),
        ({"at_most": 3}, "is no condition"),
        ({"language": "xx"}, "xx is no language known here; use a code like ja"),
        ({"language": "ja", "amung": ["en"]}, r"conditions\[0\].amung: no such key; check"),
        ({"format": "jason"}, "format jason is unknown; use one of regex, number"),
        ({"format": "regex"}, r"conditions\[0\].pattern: missing; add it"),
        ({"format": "regex", "pattern": "("}, r"\( is no regular expression .* mend it"),
        ({"length": "words"}, "no limit; give at_least, at_most or both"),
        ({"length": "words", "at_least": 5, "at_most": 2}, "at_least 5 is above at_most 2; swap"),
        ({"length": "feet", "at_most": 3}, "'characters', 'words', 'sentences' or 'lines'"),
        ({"length": "words", "at_most": "3"}, "at_most: .* integer"),
        ({"format": "bullets", "at_least": -1}, "at_least: below 0; give 0 or more"),
    ],
)
def test_wrong_settings_are_said_in_a_line(settings: object, said: str) -> None:
    with pytest.raises(TaskError, match=said) as raised:
        parse_conditions(settings)
    assert "\n" not in str(raised.value)

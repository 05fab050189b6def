"""What a check of values refuses, in this project's words instead of pydantic's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.errors import one_line

_TYPE_TAGS = frozenset({"bool", "float", "int", "str", "dict", "Condition"})


def written_parts(problem: Mapping[str, Any]) -> tuple[int | str, ...]:
    """The location of a problem in the user's document, without pydantic's names of union members.

    problem: one of ValidationError.errors(). An unknown key is always kept, because the user wrote
    it.
    """
    location: tuple[int | str, ...] = problem["loc"]
    unknown = location[-1:] if problem["type"] == "extra_forbidden" else ()
    known = location[: len(location) - len(unknown)]
    return (
        *(part for part in known if isinstance(part, int) or not _is_type(part)),
        *unknown,
    )


def _is_type(part: str) -> bool:
    return "[" in part or part in _TYPE_TAGS or part.startswith("constrained-")


_LIST = "not a list; write [...]"
_MAPPING = "not a mapping; write its keys"
_TIME = "not a time; write it with its zone, as 2030-12-31T18:00:00Z"

_PLAIN = {
    "missing": "missing; add it",
    "extra_forbidden": "no such key; check its spelling",
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "int_parsing": "not a whole number; give one",
    "int_from_float": "not a whole number; give one",
    "int_parsing_size": "too many digits; give a smaller number",
    "int_type": "not an integer; give a whole number",
    "float_parsing": "not a number; give one",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "string_type": "not a text; write it in quotes",
    "string_unicode": "not a text; write it in UTF-8",
    "none_required": "nothing can be given here; leave it out",
    "timezone_aware": "it has no time zone; write one, as 2030-12-31T18:00:00Z",
    "greater_than": "not above {gt}; give more",
    "greater_than_equal": "below {ge}; give {ge} or more",
    "less_than": "not below {lt}; give less",
    "less_than_equal": "above {le}; give {le} or less",
    "string_too_short": "shorter than {min_length}; give that many characters or more",
    "string_too_long": "longer than {max_length}; give that many characters or fewer",
    "too_short": "fewer than {min_length}; give that many entries or more",
    "too_long": "more than {max_length}; give that many entries or fewer",
    "string_pattern_mismatch": "not of the form {pattern}; write it so",
    "literal_error": "write {expected}",
    "enum": "write {expected}",
}
"""Our words for problems by pydantic's name. Most of its own are about Python."""

_OWN = frozenset({"value_error", "assertion_error", "document", "token_source", "shape"})
"""Problems whose words are ours already."""


def problem_text(problem: Mapping[str, Any]) -> str:
    """A problem of a validator (one of ValidationError.errors()) in one line."""
    kind = problem["type"]
    if kind in _OWN:
        return one_line(str(problem["msg"]).removeprefix("Value error, "))
    if problem["loc"][-1:] == ("bool",):  # the first of the types that a value may have
        return "not a number, a switch or a word"
    if kind.startswith(("date", "time")) and kind not in _PLAIN:
        return _TIME
    words = _PLAIN.get(kind, "not a value that can be used; look its form up in the documentation")
    context = {name: _short(value) for name, value in problem.get("ctx", {}).items()}
    return words.format_map(context) if "{" in words else words


def _short(value: object) -> object:
    """A limit as people write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value

"""YAML documents that users write: read, and what is wrong with one said in a line.

What the keys of a document mean is not known here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import InputError, one_line

# The C loader reads the same documents some ten times faster, where PyYAML was built with it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TYPE_TAGS = frozenset({"bool", "float", "int", "str", "dict", "constrained-str", "Condition"})


def load_text(path: Path, *, kind: str, error: type[InputError]) -> str:
    """The text of a document; `kind` names it ("a job"). Raises `error` in one line."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror}); check the path") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not UTF-8 text; {kind} is a YAML file") from cause


def parse_mapping(
    text: str, *, where: str, expected: str, error: type[InputError]
) -> dict[str, Any]:
    """A document that is a mapping with the `expected` keys. Raises `error` in one line."""
    with _said_in_a_line(where, error):
        loader = _Loader(text)
        try:
            document = loader.get_single_data()
        finally:
            loader.dispose()
    if not isinstance(document, dict):
        raise error(f"{where}: expected a mapping with {expected}")
    return document


def parse_mappings(
    text: str, *, where: str, expected: str, error: type[InputError]
) -> list[dict[str, Any]]:
    """One document or several, each a mapping with the `expected` keys; empty ones are left out.

    Raises `error` in one line.
    """
    with _said_in_a_line(where, error):
        documents = [found for found in yaml.load_all(text, _Loader) if found is not None]
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise error(f"{where}: expected a mapping with {expected}")
    return documents


@contextlib.contextmanager
def _said_in_a_line(where: str, error: type[InputError]) -> Iterator[None]:
    """Syntax errors of YAML as `error`."""
    try:
        yield
    except yaml.YAMLError as cause:
        raise error(f"{where}: not YAML ({one_line(cause)}); mend the syntax") from cause


def written_parts(location: Sequence[int | str]) -> tuple[int | str, ...]:
    """A location as the user wrote it: pydantic adds the member of a union that it tried."""
    return tuple(
        part
        for part in location
        if isinstance(part, int) or not ("[" in part or part in _TYPE_TAGS)
    )


_PLAIN = {
    "missing": "missing; add it",
    "extra_forbidden": "no such key; check its spelling",
    "dict_type": "not a mapping; write its keys",
    "bool_type": "not a number, a switch or a word",
    "bool_parsing": "not a number, a switch or a word",
    "model_type": "not a mapping; write its keys",
    "tuple_type": "not a list; write [...]",
    "int_parsing": "not a whole number",
    "int_from_float": "not a whole number",
    "float_parsing": "not a number",
    "string_type": "not a text",
}
"""Problems by pydantic's name, where its own words speak of Python."""


def problem_text(problem: Mapping[str, Any]) -> str:
    """What a validator found (one of ValidationError.errors()), in one line."""
    said = str(problem["msg"]).removeprefix("Value error, ")
    return _PLAIN.get(problem["type"], one_line(said))

"""Rows of a JSON lines file, or of a JSON file with one list: a mapping a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from evomerge.errors import TaskError, one_line
from evomerge.questions.table import Rows, check_row_count, shown


def read_json_rows(text: str, *, where: str) -> Rows:
    """Read the text of the file; a row without a key has None there. Raises TaskError."""
    found = list(_list_rows(text, where) if text.lstrip()[:1] == "[" else _lines(text, where))
    check_row_count(len(found), where)
    columns = list(dict.fromkeys(name for _, row in found for name in row))
    return Rows(
        columns=columns,
        rows=[[row.get(name) for name in columns] for _, row in found],
        places=[place for place, _ in found],
    )


def _lines(text: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # Not splitlines: JSON texts may hold the other line breaks of Unicode as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            check_row_count(number - 1, where)
            place = f"line {number}"
            yield place, _mapping(_parsed(line, f"{where}: {place}"), f"{where}: {place}")


def _list_rows(text: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    listed = _parsed(text, where)
    for number, row in enumerate(listed, start=1):
        yield f"row {number}", _mapping(row, f"{where}: row {number}")


def _mapping(row: object, where: str) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    raise TaskError(
        f'{where}: not an object; write {{"question": "...", "answer": "..."}} for each question'
    )


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise TaskError(
            f"{where}: {place}character {error.colno}: not JSON ({one_line(error.msg)}); write one "
            "object in each line"
        ) from error
    except _TwiceError as error:
        raise TaskError(f"{where}: has the key {shown(error.key)} twice; keep one") from error
    except RecursionError as error:
        raise TaskError(f"{where}: nested too deep; write it flatter") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise TaskError(
            f"{where}: has a number of thousands of digits; write it as a text"
        ) from error


class _TwiceError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in pairs:
        if key in row:
            raise _TwiceError(key)
        row[key] = value
    return row


def _no_number(_name: str) -> None:
    """NaN and infinities are no values: the cell is empty."""

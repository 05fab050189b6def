"""Jobs and grids as clients send them: a mapping or YAML text, with changes by dotted keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from evomerge.documents import TOO_DEEP, is_deeper, parse_mapping
from evomerge.errors import JobError

_LARGEST = 100_000
"""Values of a document, in all its levels."""


def as_mapping(
    document: Mapping[str, Any] | str, changes: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """The document with its changes. Raises JobError in one line."""
    made: dict[str, Any]
    if isinstance(document, str):
        made = parse_mapping(document, where=where, expected="the keys of the file", error=JobError)
    else:
        made = _copied(document, where)
    for key, value in changes.items():
        *parents, last = key.split(".")
        target: Any = made
        for parent in parents:
            target = target.setdefault(parent, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict) or not last:
            raise JobError(
                f"set: {key}: {'.'.join(parents) or 'it'} is not a mapping in the {where}; a list "
                "is given whole, as {'report': ['a', 'b']}"
            )
        target[last] = _copied(value, f"set: {key}")
    return made


def as_yaml(document: Any) -> str:
    """Plain values as YAML."""
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text


def _copied(value: Any, where: str) -> Any:
    """A copy of JSON values, which may be changed. Raises JobError beyond any job's size."""
    if is_deeper(value):
        raise JobError(f"{where}: {TOO_DEEP}")
    return _copy(value, where, [0])


def _copy(value: Any, where: str, count: list[int]) -> Any:
    count[0] += 1
    if count[0] > _LARGEST:
        raise JobError(f"{where}: more than {_LARGEST:,} values; write less")
    if isinstance(value, Mapping):
        return {key: _copy(each, where, count) for key, each in value.items()}
    if isinstance(value, list):
        return [_copy(each, where, count) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise JobError(f"{where}: {value} is not finite; give a finite number")
    return value

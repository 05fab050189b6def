"""Changes of a request by dotted keys, as `--set` of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.errors import JobError


def changed(request: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The request with other values under dotted keys. Raises JobError."""
    document: dict[str, Any] = _copied(request)
    for key, value in changes.items():
        *parents, last = key.split(".")
        target: Any = document
        for parent in parents:
            target = target.setdefault(parent, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict) or not last:
            raise JobError(
                f"set.{key}: {'.'.join(parents)} is not a mapping in the job; a list is given whole"
            )
        target[last] = value
    return document


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list | tuple) else value

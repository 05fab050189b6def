"""Digests of what a record keeps, so that damage is noticed where it is read.

They are taken of the very text that is kept, or of item results as they are, never of the bytes of
a file: the same results written by other versions of a library have the same digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.candidate import TaskItems

_DIGEST, _VALUE = "sha256", "value"


def digest_text(*parts: str) -> str:
    """Of texts without line breaks, such as JSON, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest_items(tasks: Mapping[str, TaskItems]) -> str:
    """Of item results, to the last bit."""
    rows = [
        [task, list(items.ids), [[m, [float(v) for v in vs]] for m, vs in items.metrics.items()]]
        for task, items in tasks.items()
    ]
    return digest_text(json.dumps(rows))


def digest_result(state: str, values: Sequence[float], attributes: Sequence[str]) -> str:
    """Of what a trial says, but for its parameters; the attributes as JSON."""
    return digest_text(json.dumps([state, list(values)]), *attributes)


def digest_parameters(rows: Sequence[tuple[str, float, str]]) -> str:
    """Of a trial's parameters: name, value, and the distribution as JSON."""
    return digest_text(json.dumps([list(row) for row in rows]))


def sealed(value: Any) -> dict[str, Any]:
    """A JSON value with its digest, which `unsealed` checks."""
    return {_DIGEST: digest_text(json.dumps(value)), _VALUE: value}


def is_sealed(document: Any) -> bool:
    """Whether a value was kept with its digest, as all are since there are digests."""
    return isinstance(document, dict) and set(document) == {_DIGEST, _VALUE}


def unsealed(document: Mapping[str, Any]) -> Any:
    """The value that was sealed. Raises ValueError where it is not what it was."""
    if digest_text(json.dumps(document[_VALUE])) != document[_DIGEST]:
        raise ValueError("a digest does not fit")
    return document[_VALUE]

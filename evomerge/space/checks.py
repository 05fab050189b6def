"""Checks of single keys and values in the YAML of a space, each said in one line with its mend.

What the keys mean is not known here.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from evomerge.errors import JobError

_WIDEST = 1e9
"""Of a range; sums and products of wider ones would not be finite."""


def check_range(low: float, high: float, place: str) -> None:
    """Raise JobError for a range that is none, or that nobody means."""
    if low >= high:
        raise JobError(f"{place}.low: {low:g} is not below high ({high:g}); widen the range")
    if high - low > _WIDEST:
        raise JobError(f"{place}: from {low:g} to {high:g} is wider than {_WIDEST:g}; narrow it")


def nearest(name: object, known: Iterable[str]) -> str:
    """A mend for a name that is not known: the closest one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def only(written: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    """Raise JobError for a key that is not among the known ones."""
    for key in written:
        if key not in known:
            raise JobError(f"{place}.{key}: unknown key; {nearest(key, known)}")


def one_of(value: object, choices: tuple[str, ...], place: str) -> str:
    """The value as one of the words. Raises JobError."""
    if value not in choices:
        raise JobError(f"{place}: {value}: write {' or '.join(choices)}")
    return str(value)


def switch(value: object, place: str) -> bool:
    """The value as true or false. Raises JobError."""
    if not isinstance(value, bool):
        raise JobError(f"{place}: {value}: write true or false")
    return value


def number(value: object, place: str) -> float:
    """The value as a finite number. Raises JobError."""
    if isinstance(value, str):  # YAML 1.1 reads 1e-3, without a point, as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise JobError(f"{place}: {value}: give a number")
    return float(value)

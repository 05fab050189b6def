"""A page of a long list, and which projects an asker may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from evomerge.service.store.refusals import Refusal

T = TypeVar("T")

Scope: TypeAlias = "frozenset[str] | None"
"""Ids of the projects that the asker may see; None: all."""

MOST = 500
"""The most entries of a page."""


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Part of a list. cursor: of the next page; None at the end. total: of all pages."""

    items: tuple[T, ...]
    cursor: str | None
    total: int


def page_size(limit: int) -> int:
    """The number of entries of a page. Raises Refusal."""
    if not 1 <= limit <= MOST:
        raise Refusal(f"outside 1 to {MOST}", field="limit", value=limit, mend="give another")
    return limit


def read_cursor(cursor: str, *kinds: Callable[[str], Any]) -> list[Any]:
    """The parts of a cursor that an earlier page gave. Raises Refusal."""
    parts = cursor.split("~")
    try:
        values = [kind(part) for kind, part in zip(kinds, parts, strict=True)]
    except (ValueError, OverflowError):
        values = []
    if not values or any(abs(value) > 2**62 for value in values if isinstance(value, int | float)):
        raise Refusal(
            "not a cursor", field="cursor", value=cursor, mend="take it from the page before"
        )
    return values

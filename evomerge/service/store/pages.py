"""A page of a long list, and which projects an asker may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

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

"""A page of a long list, and which projects an asker may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from sqlalchemy import Select, func, select, tuple_

from evomerge.service.database.engine import Database
from evomerge.service.database.tables import DeliveryRow, JobRow, UploadRow
from evomerge.service.store.refusals import Refusal
from evomerge.service.store.texts import check_text

T = TypeVar("T")
Row = TypeVar("Row", JobRow, UploadRow, DeliveryRow)

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


def newest_first(
    db: Database,
    query: Select[Row],
    rows_of: type[Row],
    entry: Callable[[Row], T],
    *,
    limit: int,
    cursor: str | None,
) -> Page[T]:
    """A page of what a query finds, by the time at which it was made, then by id.

    rows_of: the table of the query; entry: an entry of the page, made of a row. Raises Refusal for
    a limit outside 1 to MOST, and for a cursor that no page gave.
    """
    size = page_size(limit)
    with db.read() as session:
        total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
        if cursor is not None:
            made, last = read_cursor(cursor, float, str)
            check_text(last, field="cursor", most=50)
            query = query.where(tuple_(rows_of.made, rows_of.id) < (made, last))
        query = query.order_by(rows_of.made.desc(), rows_of.id.desc()).limit(size + 1)
        rows = session.scalars(query).all()
        shown = rows[:size]
        more = f"{shown[-1].made!r}~{shown[-1].id}" if len(rows) > size else None
        return Page(items=tuple(entry(row) for row in shown), cursor=more, total=total)

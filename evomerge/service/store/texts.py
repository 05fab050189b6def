"""Texts of users that a database keeps: short, and without characters that it cannot keep."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

from evomerge.service.store.refusals import Refusal

_TURNED = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Classes of characters that turn the direction of writing."""

LATEST_S = 4e9
"""The latest time that is kept, in the year 2096; a later one is milliseconds, or a slip."""


def time_text(seconds: float) -> str:
    """A time for people, in UTC; seconds: since the epoch."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:-6] + "Z"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s after 1970"


LATEST_TEXT = time_text(LATEST_S)


def check_text(text: object, *, field: str, most: int, least: int = 0) -> str:
    """The text, if both databases can keep it and a line can show it. Raises Refusal."""
    if not isinstance(text, str):
        raise Refusal("not a text", field=field, value=repr(text)[:100], mend="give a text")
    shown = text.encode("ascii", "backslashreplace").decode()[:100]
    if not least <= len(text) <= most:
        raise Refusal(
            f"{len(text)} characters", field=field, value=shown, mend=f"give {least} to {most}"
        )
    if any(ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0 for sign in text) or not _can_encode(text):
        raise _holds("control characters", shown, field)
    return text


def check_name(text: object, *, field: str, most: int, least: int = 0) -> str:
    """The text, if it also shows what it says: names are read beside others. Raises Refusal."""
    name = check_text(text, field=field, most=most, least=least)
    if any(_turns(sign) for sign in name):
        raise _holds("characters that turn the direction of writing or end a line", name, field)
    return name


def _holds(what: str, text: str, field: str) -> Refusal:
    shown = text.encode("unicode_escape").decode()
    return Refusal(f"has {what}", field=field, value=shown, mend="leave them out")


def _turns(sign: str) -> bool:
    return unicodedata.bidirectional(sign) in _TURNED or unicodedata.category(sign) in ("Zl", "Zp")


def _can_encode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

"""The log of a job in parts, with its passwords and tokens hidden however it is cut.

No secret has a space in it, so a part is cut inside a word only where the word is looked at whole.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import BinaryIO

from evomerge.errors import hide_secrets

_SPACES = b" \t\n\r\f\v"
_LONGEST_WORD = 65536
"""Bytes of a word that are looked at; of a longer one nothing is shown where it is cut."""
_HIDDEN = "***"


def read_part(path: Path, *, after: int, limit_bytes: int, ended: bool) -> tuple[str, int]:
    """Text of a growing file after an offset in bytes, and the next offset.

    after: negative counts from the end, and gives whole lines. ended: whether nothing more will be
    written; until then a word at the end of the file is left for the next part, as it may grow. A
    file that is not there yet is empty.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            begin = max(0, size + after) if after < 0 else min(after, size)
            part = _at(file, begin, limit_bytes)
            if begin + len(part) < size:
                part = part[: part.rfind(b"\n") + 1] or part[: _last_word(part)] or part
            elif not ended:
                part = part[: _last_word(part)]
            if after < 0 < begin and b"\n" in part:
                cut = part.index(b"\n") + 1
                begin, part = begin + cut, part[cut:]
            return _hidden(file, begin, part), begin + len(part)
    except FileNotFoundError:
        return "", 0


def _hidden(file: BinaryIO, begin: int, part: bytes) -> str:
    """The part as text; a word that it has a piece of is judged whole."""
    if not part:
        return ""
    before = _at(file, max(0, begin - _LONGEST_WORD), min(begin, _LONGEST_WORD))
    behind = _at(file, begin + len(part), _LONGEST_WORD)
    missing = before[_last_word(before) :]
    first = _first_space(part)
    shown = ""
    if missing and first:
        # The word goes on behind the part where the part has no space.
        rest = behind[: _first_space(behind)] if first == len(part) else b""
        whole = len(missing) < _LONGEST_WORD and len(rest) < _LONGEST_WORD
        shown = _piece(part[:first], missing + part[:first] + rest, whole=whole)
        part = part[first:]
    last, end = _last_word(part), ""
    following = behind[: _first_space(behind)]
    if last < len(part) and following:
        whole = len(following) < _LONGEST_WORD
        end = _piece(part[last:], part[last:] + following, whole=whole)
        part = part[:last]
    lines = part.decode("utf-8", "replace").splitlines(keepends=True)
    return shown + "".join(map(hide_secrets, lines)) + end


def _piece(piece: bytes, word: bytes, *, whole: bool) -> str:
    text = word.decode("utf-8", "replace")
    if whole and hide_secrets(text) == text:
        return piece.decode("utf-8", "replace")
    return _HIDDEN


def _at(file: BinaryIO, begin: int, size_bytes: int) -> bytes:
    file.seek(begin)
    return file.read(size_bytes)


def _first_space(text: bytes) -> int:
    """Where the first word ends."""
    found = re.search(rb"[ \t\n\r\f\v]", text)
    return len(text) if found is None else found.start()


def _last_word(text: bytes) -> int:
    """Where the last word begins; the end if a space is there."""
    return max(text.rfind(bytes([sign])) for sign in _SPACES) + 1

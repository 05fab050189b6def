"""Reads a table of questions from a file: CSV, JSON lines or Parquet, by its content and name.

The file is untrusted. Its size, rows, columns and cells are limited, and every problem is one line
with the file and the line or row.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias

from evomerge.documents import is_deeper, load_bytes
from evomerge.errors import TaskError, one_line

Format: TypeAlias = Literal["csv", "json", "parquet"]

Cell: TypeAlias = object
"""A text, a number, a switch, None, a list or a mapping; a CSV file has texts alone."""

LARGEST_BYTES = 256 * 2**20
MOST_ROWS = 200_000
MOST_COLUMNS = 1_000
LONGEST_CELL = 2**20
"""Characters of a cell."""

_SHOWN_CHARACTERS = 40
_JSON_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson"})
_TEXT_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".txt"})
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_NOT_TABLES = (
    (b"PK\x03\x04", "a spreadsheet or a zip archive; save the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet; save the sheet as CSV (UTF-8)"),
    (b"\x1f\x8b", "compressed; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed; unpack it first"),
    (b"BZh", "compressed; unpack it first"),
)
"""First bytes of other files that people give, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of a file. places: where each row is, "line 7" or "row 7"; sha256: of the file.

    path: as messages name the file.
    """

    path: Path
    format: Format
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    places: tuple[str, ...]
    sha256: str

    def column(self, name: str) -> list[Cell]:
        """The cells of a column, row by row."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a format's reader finds; named as in Table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    places: Sequence[str]


def read_table(
    path: Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    header: bool = True,
    shown_as: str | None = None,
) -> Table:
    """Read a file of questions.

    encoding: of a text file; UTF-8 or what its byte order mark says if not given. delimiter: of a
    CSV file; found by its first rows if not given. header: whether a CSV file names its columns in
    the first row; else they are named 1, 2, 3. shown_as: a name for messages, in place of the path.
    Raises TaskError in one line.
    """
    from evomerge.questions.delimited import read_delimited
    from evomerge.questions.json_rows import read_json_rows
    from evomerge.questions.parquet_rows import read_parquet

    data = load_bytes(path, kind="the questions", limit_bytes=LARGEST_BYTES, error=TaskError)
    named = path if shown_as is None else Path(shown_as)
    where = str(named)
    for start, what in _NOT_TABLES:
        if data.startswith(start):
            raise TaskError(f"{where}: {what}")
    format_: Format = "csv"
    if data.startswith(b"PAR1"):
        format_, found = "parquet", read_parquet(data, where=where)
    elif path.suffix.lower() == ".parquet":
        raise TaskError(f"{where}: not a Parquet file, or cut off; write it again")
    else:
        text = _decoded(data, where, encoding)
        if not text.strip():
            raise TaskError(f"{where}: empty; give a file with questions and answers")
        suffix = path.suffix.lower()
        looks_json = text.lstrip()[:1] in ("{", "[") and suffix not in _TEXT_SUFFIXES
        if suffix in _JSON_SUFFIXES or looks_json:
            format_, found = "json", read_json_rows(text, where=where)
        else:
            found = read_delimited(
                text,
                where=where,
                delimiter=delimiter,
                header=header,
                tabs=suffix in (".tsv", ".tab"),
            )
    return _checked(named, found, format_, hashlib.sha256(data).hexdigest())


def _decoded(data: bytes, where: str, encoding: str | None) -> str:
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    named = encoding or marked or "utf-8"
    try:
        text = data.decode(named)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"{where}: line {line}: not {named} text (byte 0x{data[error.start]:02x}); save it as "
            "UTF-8, or name its encoding: --encoding cp1252"
        ) from error
    except (LookupError, ValueError, TypeError) as error:
        raise TaskError(
            f"--encoding {named}: no such encoding of text; give utf-8 or cp1252"
        ) from error
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        mend = "give a text file, or remove it"
        # Half of UTF-16 is NUL where the letters are Latin.
        if encoding is None and text.count("\0") > len(text) // 3:
            name = "utf-16-le" if text[1:2] == "\0" else "utf-16-be"
            mend = f"if it is UTF-16, name its encoding: --encoding {name}"
        raise TaskError(f"{where}: line {line}: has a NUL character; {mend}")
    return text


def _checked(path: Path, found: Rows, format_: Format, sha256: str) -> Table:
    """The table, after the checks that all formats share."""
    where = str(path)
    if len(found.columns) > MOST_COLUMNS:
        raise TaskError(
            f"{where}: {len(found.columns):,} columns, and {MOST_COLUMNS:,} is the limit; keep "
            "those with questions and answers"
        )
    seen: set[str] = set()
    for name in found.columns:
        if name in seen:
            raise TaskError(f"{where}: two columns are named {shown(name)}; rename one of them")
        seen.add(name)
    if not found.columns:
        raise TaskError(f"{where}: has no columns; give questions and answers in each row")
    if not found.rows:
        raise TaskError(f"{where}: has no rows below its header; add questions and answers")
    for row, place in zip(found.rows, found.places, strict=True):
        for name, cell in zip(found.columns, row, strict=True):
            _check_cell(cell, f"{where}: {place}: {shown(name)}")
    return Table(
        path=path,
        format=format_,
        columns=tuple(found.columns),
        rows=tuple(tuple(row) for row in found.rows),
        places=tuple(found.places),
        sha256=sha256,
    )


def _check_cell(cell: Cell, where: str) -> None:
    if cell is None:
        return
    if isinstance(cell, list | dict) and is_deeper(cell):  # texts are many, and have no depth
        raise TaskError(f"{where}: nested too deep; write it flatter")
    text = str(cell)
    if len(text) > LONGEST_CELL:
        raise TaskError(f"{where}: longer than {LONGEST_CELL:,} characters; shorten it")
    if "\0" in text:
        raise TaskError(f"{where}: has a NUL character; remove it")
    if not text.isascii() and any(0xD800 <= ord(sign) <= 0xDFFF for sign in text):
        raise TaskError(f"{where}: has half of a character (a lone surrogate); write it again")


def check_row_count(count: int, where: str) -> None:
    """Raise TaskError if there are more rows than any reader takes."""
    if count > MOST_ROWS:
        raise TaskError(
            f"{where}: more than {MOST_ROWS:,} rows; draw some, a few thousand are enough for any "
            "score"
        )


def text_of(cell: Cell) -> str:
    """A cell as text without spaces around it, in NFC; empty for None, infinity and no number.

    A whole number that a table keeps as a fraction (18.0) is written as a whole number.
    """
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return ""
        whole = cell.is_integer() and abs(cell) < 2**53
        # No exponent: it would be read as a number of its own.
        return str(int(cell)) if whole else f"{Decimal(repr(cell)):f}"
    if isinstance(cell, list | dict):
        return json.dumps(cell, ensure_ascii=False, default=str)
    return unicodedata.normalize("NFC", str(cell).strip())


def shown(text: str, most: int = _SHOWN_CHARACTERS) -> str:
    """A text of the file for a message: on one line, without control characters, cut if long."""
    line = one_line(text)
    return f"'{line if len(line) <= most else f'{line[:most]}...'}'"

"""Rows of a CSV file: the delimiter is found, and every row is as wide as the first."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Iterator

from evomerge.errors import TaskError, one_line
from evomerge.questions.table import LONGEST_CELL, Rows, check_row_count, shown

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLED_ROWS = 50
_NAMES = {"tab": "\t", "\\t": "\t"}


def read_delimited(
    text: str, *, where: str, delimiter: str | None, header: bool, tabs: bool
) -> Rows:
    """Read the text of a CSV file. tabs: whether its name says that tabs divide the cells.

    Raises TaskError in one line.
    """
    if delimiter is not None:
        chosen = _NAMES.get(delimiter, delimiter)
        if len(chosen) != 1 or chosen in '"\r\n\0':
            raise TaskError(
                f"--delimiter {shown(delimiter)}: not one character; give , or ; or tab"
            )
    else:
        chosen = "\t" if tabs else _found_delimiter(text)
    try:
        records = list(_records(text, where, chosen, quoted=True))
    except TaskError:
        # Files with tabs are often written without any quoting, and texts hold quotation marks.
        if chosen != "\t":
            raise
        records = list(_records(text, where, chosen, quoted=False))
    (_, first), *rest = records
    if not header:
        return Rows(
            columns=[str(number + 1) for number in range(len(first))],
            rows=[cells for _, cells in records],
            places=[f"line {line}" for line, _ in records],
        )
    names = [name.strip() or f"column {number + 1}" for number, name in enumerate(first)]
    return Rows(
        columns=names,
        rows=[cells for _, cells in rest],
        places=[f"line {line}" for line, _ in rest],
    )


def _records(
    text: str, where: str, delimiter: str, *, quoted: bool
) -> Iterator[tuple[int, list[str]]]:
    """The first line of each record that is not empty, and its cells."""
    width = 0
    with _long_cells():
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            strict=True,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        )
        count = 0
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise TaskError(f"{where}: line {line}: {_problem(error)}") from error
            if cells is None:
                return
            if not any(cell.strip() for cell in cells) and len(cells) <= max(1, width):
                continue
            count += 1
            check_row_count(count - 1, where)
            if width and len(cells) != width:
                raise TaskError(
                    f"{where}: line {line}: {_counted(len(cells))}, and the first has {width}; "
                    f"put texts that hold {_named(delimiter)} or a line break in quotes"
                )
            width = width or len(cells)
            yield line, cells


def _problem(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text:
        return "a quotation mark is opened and never closed; close it, or write it twice"
    if "field larger" in text:
        return f"a cell is longer than {LONGEST_CELL:,} characters; shorten it, or close its quotes"
    if "expected after" in text:
        return "text after a closing quotation mark; write a quotation mark within a text twice"
    return f"cannot be read ({one_line(text)}); mend the line"


def _found_delimiter(text: str) -> str:
    """The delimiter that divides the first rows into the same number of cells, the most cells."""
    widths: dict[str, int] = {}
    for delimiter in _DELIMITERS:
        try:
            sample = list(
                itertools.islice(_records(text, "", delimiter, quoted=True), _SAMPLED_ROWS)
            )
        except TaskError:
            continue
        widths[delimiter] = len(sample[0][1]) if sample else 0
    best = max(widths.values(), default=0)
    if best > 1:
        return next(delimiter for delimiter, width in widths.items() if width == best)
    # No delimiter fits every row: the one that the first line has most, so that the error is its.
    first = text.lstrip().partition("\n")[0]
    return max(_DELIMITERS, key=first.count)


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """Let csv read long cells; its limit is one for the whole process."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _counted(cells: int) -> str:
    return "1 cell" if cells == 1 else f"{cells} cells"


def _named(delimiter: str) -> str:
    return {"\t": "a tab", " ": "a space"}.get(delimiter) or shown(delimiter)

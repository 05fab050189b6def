"""The process that reads records for a server: questions on stdin, a line each; answers on stdout.

    python -m evomerge.service.http.reading

An answer is some lines with a part each, and one that ends it and says what went wrong, if
anything did. The process ends with stdin, so also when the server is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import EvomergeError
from evomerge.service.http.drawing import plain
from evomerge.startup import share_heap

PART, END = b"+", b"."
"""What a line of an answer begins with."""
ROWS = 500
"""Candidates in a part, so that the server never decodes a long text at once."""


def main() -> None:
    """Answer until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this
    share_heap()  # the libraries that it loads read in threads
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        end: dict[str, str] = {}
        try:
            question = json.loads(line)
            for part in _READINGS[question.pop("what")](**question):
                text = json.dumps(part, ensure_ascii=False, separators=(",", ":"), default=plain)
                answers.write(PART + text.encode("utf-8", "surrogatepass") + b"\n")
        except EvomergeError as error:
            end = {"error": type(error).__name__, "text": str(error)}
        except Exception:
            end = {"trace": traceback.format_exc()}
        answers.write(END + json.dumps(end).encode() + b"\n")
        answers.flush()


def _record(folder: str, shown_as: str) -> Iterator[Any]:
    """Status, outcome, series, result, the number of candidates, and their rows in parts."""
    from evomerge.api import read_record

    view = read_record(folder)
    # The server's folder is nothing to its readers.
    yield {
        key: value.replace(folder, shown_as) if key in ("run_dir", "export") and value else value
        for key, value in view.status.items()
    }
    yield view.outcome
    yield view.series
    yield view.result
    yield len(view.candidates)
    for begin in range(0, len(view.candidates), ROWS):
        yield [dict(row) for row in view.candidates[begin : begin + ROWS]]


def _nothing(folder: str) -> Iterator[Any]:
    """Load what reading needs."""
    import evomerge.api

    _ = evomerge.api.read_record
    yield from ()


def _recipe(folder: str, trial: str | None, point: str | None) -> Iterator[Any]:
    """A recipe as YAML."""
    from evomerge.api import recipe_text

    yield recipe_text(folder, trial=trial, point=point)


def _items(folder: str, candidates: list[str]) -> Iterator[Any]:
    """Item results of candidates."""
    from evomerge.api import read_items

    yield read_items(folder, candidates)


def _answers(
    folder: str, models: list[str], wanted: Mapping[str, Any], offset: int, limit: int
) -> Iterator[Any]:
    """Some of the answers side by side, and how many there are."""
    from evomerge.api import answer_sheet

    yield answer_sheet(Path(folder), models, **wanted).shown(offset, limit).to_json()


_READINGS: Mapping[str, Callable[..., Iterator[Any]]] = {
    "nothing": _nothing,
    "record": _record,
    "recipe": _recipe,
    "items": _items,
    "answers": _answers,
}

if __name__ == "__main__":
    main()

"""Writes `data/code_outputs.jsonl`: every function called with values drawn from a fixed seed.

    python evals/code_outputs/generate.py

Only the functions of `functions.py` are run, never what a model wrote. The same bytes every time.
"""

from __future__ import annotations

import inspect
import json
import random
import runpy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

FUNCTIONS = runpy.run_path(str(Path(__file__).parent / "functions.py"))["FUNCTIONS"]

CALLS = 12
"""Different calls of each function."""

_WORDS = (
    *("amber", "bridge", "cloud", "delta", "ember", "forest"),
    *("garden", "harbor", "island", "jungle", "kettle", "lantern"),
)

_DRAWS: Mapping[str, Callable[[random.Random], object]] = {
    "numbers": lambda source: [source.randint(1, 6) for _ in range(source.randint(4, 8))],
    "number": lambda source: source.randint(2, 200),
    "text": lambda source: "".join(source.choice("aabbcdeo") for _ in range(source.randint(4, 9))),
    "words": lambda source: source.sample(_WORDS, source.randint(3, 5)),
    "grid": lambda source: [[source.randint(0, 9) for _ in range(3)] for _ in range(2)],
    "prices": lambda source: {
        name: source.randint(3, 15) for name in source.sample(_WORDS, source.randint(2, 4))
    },
}
"""Values by the name of the parameter that takes them."""


def items() -> Iterator[dict[str, str]]:
    """Items: the function's source under the name `f`, the argument, and the value, as literals."""
    source = random.Random(0)
    for function in FUNCTIONS:
        (parameter,) = inspect.signature(function).parameters
        asked: set[str] = set()
        while len(asked) < CALLS:
            argument = _DRAWS[parameter](source)
            written = repr(argument)
            if written in asked:
                continue
            asked.add(written)
            yield {
                "code": inspect.getsource(function)
                .replace(f"def {function.__name__}(", "def f(")
                .rstrip(),
                "input": written,
                "output": repr(function(argument)),
            }


def text() -> str:
    """The file, an item a line."""
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items())


if __name__ == "__main__":
    path = Path(__file__).parent / "data" / "code_outputs.jsonl"
    path.write_text(text(), encoding="utf-8")
    print(f"{path}: {text().count(chr(10))} items")

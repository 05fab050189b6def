"""A process that reads a stranger's table: says what it has, or makes a task of it.

    python -P -m evomerge.service.http.task_maker FILE [OUT]

It reads what is asked for from stdin and prints JSON. Its memory is limited before it opens the
file, and where memory runs out the system ends it before it ends the server. Exit code 2, with one
line on stderr, for a table that cannot be used, 3 for a disk that is full.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evomerge.errors import EvomergeError, StorageError

_CPU_S = 300
_LONGEST_NAME = 200
_LONGEST_TEXT = 20_000


def describe(file: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Format, columns and rows of a table."""
    from evomerge.api import describe_table

    found = describe_table(file, **options)
    return {**found, "columns": [_cut(name, _LONGEST_NAME) for name in found["columns"]]}


def make(file: Path, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Make the task, and say in plain values what was made."""
    from evomerge.api import task_from_file

    report = task_from_file(file, out, **options)
    return {
        "name": report.name,
        "metric": report.metric,
        "metrics": report.to_json()["metrics"],
        "kind": report.kind,
        "reason": report.reason,
        "stop": list(report.stop),
        "max_tokens": report.max_tokens,
        "columns": asdict(report.columns),
        "items": report.items,
        "examples": report.examples,
        "splits": dict(report.splits),
        "checks": [asdict(check) for check in report.checks],
        "prompts": [
            {**asdict(shown), "prompt": _cut(shown.prompt), "answer": _cut(shown.answer)}
            for shown in report.prompts
        ],
    }


def _cut(text: str, most: int = _LONGEST_TEXT) -> str:
    """A text that a page can show; what is left out is said."""
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]} [... {more:,} more characters]"


def limit_this_process(memory_bytes: int) -> None:
    """Limit the memory that this process may write to, its time, and what a crash would leave."""
    limits = {
        # Not the address space: libraries map far more of it than they ever use.
        resource.RLIMIT_DATA: memory_bytes,
        resource.RLIMIT_CPU: _CPU_S,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    with contextlib.suppress(OSError):  # no Linux
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def main(arguments: list[str]) -> int:
    """Do what is asked for; the exit code."""
    asked = json.load(sys.stdin)
    limit_this_process(asked["memory_bytes"])
    file, *out = map(Path, arguments)
    options = asked["options"]
    try:
        answer = make(file, out[0], options) if out else describe(file, options)
        sys.stdout.write(json.dumps(answer))
    except MemoryError:
        memory = asked["memory_bytes"] // 2**20
        print(
            f"{options['shown_as']}: needs more than {memory:,} MiB of memory to be read; draw "
            "some rows, a few thousand are enough for any score",
            file=sys.stderr,
        )
        return EvomergeError.exit_code
    except StorageError as error:
        print(error, file=sys.stderr)
        return 3
    except EvomergeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A process that makes a task of a table: reads what is asked for from stdin, prints a report.

    python -m evomerge.service.http.task_maker FILE OUT

Exit code 2, with one line on stderr, for a table of which no task can be made.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evomerge.errors import EvomergeError


def main(file: Path, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Make the task, and say in plain values what was made."""
    from evomerge.api import task_from_file

    report = task_from_file(file, out, **options)
    return {
        "name": report.name,
        "metric": report.metric,
        "kind": report.kind,
        "reason": report.reason,
        "columns": asdict(report.columns),
        "items": report.items,
        "splits": dict(report.splits),
        "checks": [asdict(check) for check in report.checks],
        "prompts": [asdict(shown) for shown in report.prompts],
    }


if __name__ == "__main__":
    try:
        print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), json.load(sys.stdin))))
    except EvomergeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)

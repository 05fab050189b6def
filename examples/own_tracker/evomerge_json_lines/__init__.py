"""JSON lines: every point of a search as a line of a file that other programs can follow.

A whole tracker in a package of its own; `pip install ./examples/own_tracker` adds it.
"""

from __future__ import annotations

import json
from pathlib import Path

from evomerge.track import Ending, Point, Reached, TrackedRun, Tracker, TrackerKind


class JsonLines(Tracker):
    """RUN_DIR/points.jsonl. decimals: of the values."""

    def __init__(self, decimals: str | int = 6) -> None:
        self._decimals = int(decimals)

    def open(self, run: TrackedRun) -> str:
        """Open the file; its path is the id of the run."""
        path = Path(run.run_dir, "points.jsonl")
        self._found = Reached()
        for line in path.read_text().splitlines() if path.exists() else ():
            found = json.loads(line)
            if "step" in found:
                point = Point(axis=found["axis"], step=found["step"], values={})
                self._found = self._found.after(point)
        self._file = path.open("a")
        return str(path)

    def reached(self) -> Reached:
        """The last steps in the file, so that a resumed search writes none twice."""
        return self._found

    def log(self, point: Point) -> None:
        """Write a candidate or a generation."""
        values = {name: round(value, self._decimals) for name, value in point.values.items()}
        self._write({"axis": point.axis, "step": point.step, **values})

    def finish(self, ending: Ending) -> None:
        """Write what the search found."""
        self._write({**ending.values, **ending.texts})

    def close(self, *, ended: bool) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


JSON_LINES = TrackerKind(name="json_lines", make=JsonLines)

"""A process that draws: prints the figures or the report of a search, and ends.

    python -m evomerge.service.http.drawing figures|coefficients|report RUN_DIR

Exit code 2, with one line on stderr, for a record that cannot be read.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from evomerge.errors import EvomergeError


def main(what: str, run_dir: Path) -> None:
    """Print the figures or the coefficients as JSON, or the report as HTML."""
    if what == "figures":
        from evomerge.api import figures_of

        text = json.dumps(figures_of(run_dir), ensure_ascii=False, default=plain).encode()
    elif what == "coefficients":
        from evomerge.api import coefficients_over_depth

        text = json.dumps(coefficients_over_depth(run_dir), ensure_ascii=False).encode()
    else:
        from evomerge.api import report

        with tempfile.TemporaryDirectory() as folder:
            text = report(run_dir, Path(folder) / "report.html").read_bytes()
    sys.stdout.buffer.write(text)


def plain(value: object) -> object:
    """Numbers and arrays of numpy as JSON has them."""
    tolist = getattr(value, "tolist", None)
    if tolist is None:
        raise TypeError(f"{type(value).__name__} is no plain value")
    return tolist()


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except EvomergeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)

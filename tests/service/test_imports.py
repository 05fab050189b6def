"""What a server loads: it answers requests, and leaves models to the processes of jobs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "lm_eval", "optuna", "ray", "pandas", "scipy", "numba")


def test_a_server_loads_no_large_library() -> None:
    program = (
        "import sys, evomerge.service.http.server, evomerge.service.runner.supervisor, "
        "evomerge.service.database.backup, evomerge.service.queue.moves\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"

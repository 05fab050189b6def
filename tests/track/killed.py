"""A search that kills itself after its sixth candidate.

As a program: the job as JSON, the run directory, the tracker.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import evomerge
from evomerge.search import CandidateDone, Event, run
from tests.search.jobs import LightPool


def search(document: Any, run_dir: Path, track: str) -> NoReturn:
    """Search until the kill."""
    seen = 0

    def watch(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, CandidateDone) and event.phase == "search"
        if seen == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    run.open_job_pool = lambda *given, **named: LightPool()
    try:
        evomerge.search(document, run_dir, observe=watch, track=track)
    finally:
        os._exit(1)


if __name__ == "__main__":
    search(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

"""A search that kills itself after its sixth candidate, when its tracker was given the first four.

As a program: the job as JSON, the run directory, the tracker.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import evomerge
from evomerge.search import CandidateDone, Event, run
from tests.search.jobs import LightPool


def search(document: Any, run_dir: Path, track: str) -> NoReturn:
    """Search until the kill.

    What a tracker was given and has not kept by then is lost, unless `resume` finds that out.
    """
    seen = 0

    def watch(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, CandidateDone) and event.phase == "search"
        if seen == 6:
            while given(run_dir, track) < 4:  # its first generation
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    run.open_job_pool = lambda *given, **named: LightPool()
    try:
        evomerge.search(document, run_dir, observe=watch, track=track)
    finally:
        os._exit(1)


def given(run_dir: Path, track: str) -> int:
    """How many candidates the tracker was given, as the run directory has it."""
    try:
        note = json.loads((run_dir / f"tracker-{track.partition(':')[0]}.json").read_text())
    except FileNotFoundError:
        return 0
    return int(note["candidates"])


if __name__ == "__main__":
    search(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

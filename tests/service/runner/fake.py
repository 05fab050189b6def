"""A runner whose jobs are counted steps instead of searches; a job's name says how it behaves.

Each step is kept in a file, as a search keeps its record, so a later attempt goes on after it. A
second process at work on the same job is noticed by the lock of its folder, and noted.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from evomerge.errors import InputError, WorkerError
from evomerge.service.runner.attempt import Attempt, main
from evomerge.service.store.events import NewEvent
from evomerge.service.store.job import Kind

STEP_S = 0.01


def work(attempt: Attempt) -> Mapping[str, Any]:
    name, _, count = attempt.job.name.partition(" ")
    folder = attempt.settings.run_dir(attempt.job.id)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        (folder / "twice").write_text("two processes at once")
        raise
    steps = folder / "steps"
    done = len(steps.read_text().splitlines()) if steps.exists() else 0
    if name == "input":
        raise InputError("models.base: nowhere: no such folder; check the path")
    if name == "worker" and attempt.job.attempts < 3:
        raise WorkerError("a worker died")
    if name == "bug":
        raise ZeroDivisionError("a bug")
    if name == "deaf":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    if name == "killed" and attempt.job.attempts == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "child":
        _leave_a_child(folder)
    total = int(count or 3)
    while done < total:
        with steps.open("a") as file:
            file.write(f"{done}\n")
        attempt.tell(NewEvent(name="candidate_done", body={"candidate": f"c{done}"}))
        done += 1
        time.sleep(STEP_S)
    return {"steps": done, "changes": dict(attempt.job.changes)}


def _leave_a_child(folder: Path) -> None:
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(600)
        os._exit(0)
    (folder / "child").write_text(str(child))


WORK: Mapping[Kind, Any] = {"search": work}

if __name__ == "__main__":
    main(WORK)

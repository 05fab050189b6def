"""A supervisor with fake runners for tests, and what tests wait for."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evomerge.service.database.engine import Database, open_database
from evomerge.service.queue.admission import admit_and_submit
from evomerge.service.runner.supervisor import RUNNER, Supervisor
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import jobs
from evomerge.service.store.job import Job
from tests.service.jobs import ADMIN, new_job

TASKS = Path(__file__).parents[2] / "search" / "tasks"
FAKE = (sys.executable, "-m", "tests.service.runner.fake")
TRACKERS: dict[str, dict[str, str]] = {"tensorboard": {}}
LONGEST_S = 600.0


@contextlib.contextmanager
def supervising(
    database: Database, settings: ServiceSettings, *, runner: Sequence[str] = FAKE
) -> Iterator[Supervisor]:
    supervisor = Supervisor(database, settings, runner=runner)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


def submitted(
    database: Database, settings: ServiceSettings, project: str, name: str, **changes: Any
) -> Job:
    job, _ = admit_and_submit(database, new_job(project, name=name, **changes), settings, who=ADMIN)
    return job


def wait(found: Callable[[], Any]) -> Any:
    """What `found` returns as soon as it is true."""
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        answer = found()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError("it was waited for in vain")


def wait_for(database: Database, job: Job, *states: str) -> Job:
    def found() -> Job | None:
        now = jobs.get(database, job.id)
        return now if now.state in states else None

    reached: Job = wait(found)
    return reached


def steps(settings: ServiceSettings, job: Job) -> list[str]:
    file = settings.run_dir(job.id) / "steps"
    return file.read_text().splitlines() if file.exists() else []


def command(database: Database, settings: ServiceSettings, runners: str) -> list[str]:
    """The command of a server as a process of its own, with `fake` or `real` runners."""
    told = json.dumps(settings.to_json())
    return [sys.executable, "-m", "tests.service.runner.servers", database.url, told, runners]


def main() -> None:
    """Serve until the input ends; for each line of it, say what is short two turns later."""
    url, told, runners = sys.argv[1:]
    settings = ServiceSettings.from_json(json.loads(told))
    runner = RUNNER if runners == "real" else FAKE
    with supervising(open_database(url), settings, runner=runner) as supervisor:
        print(f"serving {os.getpid()}", flush=True)
        for _ in sys.stdin:
            for _ in range(2):
                turned = supervisor._turned
                wait(lambda: supervisor._turned != turned)  # noqa: B023
            print(supervisor.held, flush=True)


if __name__ == "__main__":
    main()

"""SIMULATED runners for service_load.py: they claim and end jobs as real ones do, without a search.

Claims, states, the reporter and the database are the product's own. What is simulated: the jobs are
threads of one process, and the work of a job is to tell the events that a recorded search told, in
its order and at a set rate, and to keep the record of that search. With every candidate the record
counts as changed, so that the server reads it anew.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from evomerge.service.database.engine import Database, open_database
from evomerge.service.queue import states
from evomerge.service.queue.claim import claim
from evomerge.service.queue.states import Ending
from evomerge.service.runner.identity import own_identity
from evomerge.service.runner.reporter import Reporter
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.events import NewEvent
from evomerge.service.store.job import Job

LOOK_S = 0.25


def recorded(record: Path) -> list[NewEvent]:
    """The events that a search told."""
    told = []
    for line in (record / "events.jsonl").read_text(encoding="utf-8").splitlines():
        body = json.loads(line)
        del body["at"]
        told.append(NewEvent(name=body.pop("event"), body=body))
    return told


class SimulatedRunner(threading.Thread):
    """One attempt of one job; it is interrupted as a real one is, by its reporter."""

    def __init__(
        self,
        database: Database,
        settings: ServiceSettings,
        claimed: Job,
        *,
        record: Path,
        told: Sequence[NewEvent],
        events_per_s: float,
    ) -> None:
        super().__init__(daemon=True)
        self._database, self._settings, self._claimed = database, settings, claimed
        self._record, self._told = record, told
        self._pause_s = 1.0 / events_per_s / random.uniform(0.6, 1.4)
        self._stopped = threading.Event()

    def run(self) -> None:
        """Begin, tell, end."""
        database, settings = self._database, self._settings
        job = states.begin(database, self._claimed.id, self._claimed.claim, own_identity())
        if job is None:
            return
        reporter = Reporter(database, settings, job, interrupt=self._stopped.set)
        reporter.start()
        folder = settings.run_dir(job.id)
        if not folder.exists():
            shutil.copytree(self._record, folder)
        for event in self._told:
            reporter.tell(event)
            if event.name == "candidate_done":
                os.utime(folder / "study.db")
            if self._stopped.wait(self._pause_s):
                break
        done = Ending(outcome="succeeded", result={"simulated": True, "events": len(self._told)})
        reporter.close(reporter.stop or done)


def main() -> None:
    """Run jobs until SIGTERM: settings, database, record, slots and rate come as JSON on stdin."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    orders = json.loads(sys.stdin.readline())
    settings = ServiceSettings.from_json(orders["settings"])
    database = open_database(orders["url"])
    record = Path(orders["record"])
    told = recorded(record)
    running: list[SimulatedRunner] = []
    print("ready", flush=True)
    while not ended.wait(LOOK_S):
        running = [runner for runner in running if runner.is_alive()]
        while len(running) < orders["slots"]:
            claimed = claim(database, own_identity(), settings.limits, slots=orders["slots"])
            if claimed is None:
                break
            runner = SimulatedRunner(
                database,
                settings,
                claimed,
                record=record,
                told=told,
                events_per_s=orders["events_per_s"],
            )
            runner.start()
            running.append(runner)
    until = time.monotonic() + 10.0
    for runner in running:
        runner.join(max(0.0, until - time.monotonic()))
    os._exit(0)


if __name__ == "__main__":
    main()

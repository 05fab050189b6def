"""Kills of servers and runners over real searches, and what must hold after them."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.service.database.engine import Database
from evomerge.service.queue.admission import admit_and_submit
from evomerge.service.queue.retries import MOST_SETBACKS
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import events, jobs
from evomerge.service.store.job import Job, JobFilter
from evomerge.track.tensorboard_run import read_events
from scripts.compare_records import compare, read_record
from tests.search.jobs import job_document
from tests.service.jobs import ADMIN, new_job
from tests.service.runner.servers import TASKS, TRACKERS, command, wait_for

VICTIMS = ("server", "runner", "both")

SAME = ("trials", "notes", "item files", "answer files", "outcome", "winner", "test", "table")
"""Parts of a record, by their beginnings, that a kill must not change. The rest are the job, which
names its folder, and the log of events, in which steps are repeated."""


@dataclass(kw_only=True)
class Killings:
    """How many of each victim were killed, and after how many seconds."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VICTIMS, 0))
    after_s: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def kill_settings(folder: Path, models: Path) -> ServiceSettings:
    return ServiceSettings(
        data=folder / "data",
        source_folders=(models,),
        task_folders=(TASKS,),
        trackers=TRACKERS,
        poll_s=0.1,
        backoff_s=0.0,
        least_disk_bytes=0,
        least_memory_bytes=0,
    )


def submit_search(database: Database, settings: ServiceSettings, project: str) -> Job:
    [models] = settings.source_folders
    request = job_document(
        models,
        evaluation={
            "task_folders": [str(TASKS)],
            "items_per_generation": 8,
            "items_for_baselines": 8,
            "finalists": 1,
        },
        budget={"candidates": 12},
    )
    new = new_job(project, request=request, track=TRACKERS)
    return admit_and_submit(database, new, settings, who=ADMIN)[0]


@contextlib.contextmanager
def server(database: Database, settings: ServiceSettings) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own; it is killed at the end, and its runners go on."""
    process = subprocess.Popen(
        command(database, settings, "real"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("serving")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kill(
    database: Database,
    settings: ServiceSettings,
    project: str,
    *,
    kills: int,
    longest_s: float,
    seed: int,
    unfinished: int = 2,
) -> Killings:
    """Kill servers and runners at random instants while searches run, and more are submitted.

    unfinished: how many jobs run or wait at any time.
    """
    chance = random.Random(seed)
    killed = Killings()
    while killed.total < kills:
        with contextlib.ExitStack() as ends:
            process = ends.enter_context(server(database, settings))
            while killed.total < kills:
                left = JobFilter(states=("queued", "starting", "running"))
                if jobs.find(database, left).total < unfinished:
                    submit_search(database, settings, project)
                pause_s = chance.uniform(0.0, longest_s)
                time.sleep(pause_s)
                victim = chance.choice(VICTIMS)
                active = jobs.find(database, JobFilter(states=("starting", "running"))).items
                # On a slow machine one may be killed again and again before it does anything new;
                # after so many times a service gives a job up, which is no loss.
                runners = [
                    job.runner
                    for job in active
                    if job.runner is not None and job.setbacks < MOST_SETBACKS
                ]
                if victim != "server" and not runners:
                    continue
                killed.counts[victim] += 1
                killed.after_s.append(pause_s)
                if victim != "server":
                    chance.choice(runners).send(signal.SIGKILL)
                if victim != "runner":
                    process.kill()
                    process.wait()
                    break
    return killed


def check_record(
    database: Database, settings: ServiceSettings, job: Job, reference: Job, *, cause: str = "lost"
) -> None:
    """The record and the events of a search equal those of one that nothing disturbed.

    cause: the only one that its attempts ended by.
    """
    runs = [settings.run_dir(each.id) for each in (reference, job)]
    parts = compare(*map(read_record, runs))
    compared = [part for part in parts if part.part.startswith(SAME)]
    assert {part.part.split()[0] for part in compared} >= {"trials", "outcome", "winner", "item"}
    for part in compared:
        # A new process checks its own engine on the first candidate that it scores.
        found = [each for each in part.differences if not each[0].startswith("self_checks.")]
        assert not found, (job.id, part.part, found[:3])
    assert _told(database, job) == _told(database, reference), job.id
    numbers = [event.seq for event in events.read(database, job.id, limit=10**6)]
    assert numbers == list(range(1, len(numbers) + 1))
    _check_states(database, job, cause)
    [end] = [body for _, body in events.bodies(database, job.id, ["finished"])]
    assert job.result is not None
    assert job.result["headline"] == end["headline"]
    notes = events.bodies(database, job.id, ["note"])
    assert _shown(settings, job) == _shown(settings, reference), (job.id, notes)


def _shown(settings: ServiceSettings, job: Job) -> list[tuple[str, int]]:
    """The steps that TensorBoard shows of a search; one that is there twice is twice in it."""
    files = (settings.run_dir(job.id) / "tensorboard").glob("*tfevents*")
    found = [
        (value.tag, event.step)
        for file in files
        for event in read_events(file)
        for value in event.summary.value
        if value.tag.endswith("/number")
    ]
    return sorted(found)


def _told(database: Database, job: Job) -> list[tuple[str, dict[str, Any]]]:
    """Candidates and generations as they were told, without times, by what they are of."""
    found = []
    for name, body in events.bodies(database, job.id, ["candidate_done", "generation_done"]):
        kept = {key: value for key, value in body.items() if not key.endswith("_s")}
        found.append((name, kept))
    return sorted(found, key=lambda told: (told[0], str(told[1].get("candidate")), str(told[1])))


def _check_states(database: Database, job: Job, cause: str) -> None:
    """Attempts follow each other, and none found another one at work."""
    bodies = [body for _, body in events.bodies(database, job.id, ["state"])]
    for before, after in itertools.pairwise(bodies):
        if after["state"] == "starting":
            assert before["state"] == "queued"
            assert after["attempt"] == before["attempt"] + 1
    for body in bodies:
        assert "another process" not in (body["message"] or ""), body
        assert body["cause"] in (None, cause), body


def finish_all(database: Database, settings: ServiceSettings) -> list[Job]:
    """Let every job end, without a kill."""
    listed = jobs.find(database, JobFilter(), limit=500).items
    with server(database, settings):
        return [wait_for(database, job, "succeeded", "failed", "cancelled") for job in listed]


def end_processes(database: Database) -> None:
    """End the runners that a failed test leaves behind."""
    for job in jobs.find(database, JobFilter(states=("starting", "running"))).items:
        if job.runner is not None:
            job.runner.send(signal.SIGKILL)

"""Room that runs out under a real runner: on a disk of a few megabytes, which needs no root."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.service.database.engine import Database
from evomerge.service.runner.resources import RUNNING_SHARE
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import events, jobs
from evomerge.service.store.job import Job
from evomerge.service.store.people import Project
from tests.search.jobs import write_models
from tests.service.jobs import settings_in
from tests.service.runner.in_process import Service
from tests.service.runner.killing import check_record, end_processes, kill_settings, submit_search
from tests.service.runner.servers import command, steps, submitted, wait, wait_for

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


@dataclass(kw_only=True)
class SmallDisk:
    """A server whose data folder is a small disk of its own. seen: the folder from outside."""

    process: subprocess.Popen[str]
    seen: Path

    def fill(self, *, left_bytes: int) -> None:
        """Leave so much room, with no more of it meanwhile."""
        with (self.seen / "filler").open("ab") as file:
            more = shutil.disk_usage(self.seen).free - left_bytes
            if more > 0:
                os.posix_fallocate(file.fileno(), file.tell(), more)
            else:
                file.truncate(file.tell() + more)

    def make_room(self) -> None:
        (self.seen / "filler").unlink()

    def held(self) -> str:
        """What keeps the server from starting a job, after it has looked twice."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("?", file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def serving(
    database: Database, settings: ServiceSettings, runners: str, *, size_bytes: int
) -> Iterator[SmallDisk]:
    """A server in a user's own namespace, in which it may mount a disk in memory."""
    settings.data.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(settings.data)]
    script = f"{shlex.join(mount)} && exec {shlex.join(command(database, settings, runners))}"
    process = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not process.stdout.readline().startswith("serving"):
            pytest.skip("this system lets a user mount nothing in a namespace of its own")
        yield SmallDisk(process=process, seen=Path(f"/proc/{process.pid}/root{settings.data}"))
    finally:
        end_processes(database)
        process.stdin.close()
        process.wait()
        process.stdout.close()


def states_of(database: Database, job: Job) -> list[Mapping[str, Any]]:
    return [body for _, body in events.bodies(database, job.id, ["state"])]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
@pytest.mark.parametrize("runners", ["fake", "real"])
def test_a_job_that_ran_out_of_room_goes_on_exactly_when_there_is_room_again(
    database: Database, project: Project, tmp_path: Path, runners: str, faults: bool
) -> None:
    if runners == "real" and not faults:
        pytest.skip("two searches take long; --faults starts them")
    least = 4 * 2**20
    if runners == "real":
        write_models(tmp_path / "models")
        plain = kill_settings(tmp_path, tmp_path / "models")
        reference = submit_search(database, plain, project.id)
        Service(database=database, settings=plain, project=project.id).run(reference)
        settings = replace(plain, data=tmp_path / "small", least_disk_bytes=least)
        job = submit_search(database, settings, project.id)
    else:
        settings = settings_in(tmp_path, least_disk_bytes=least)
        # A second attempt without room would be the last.
        job = submitted(database, settings, project.id, "steps 400", retries=1)
    with serving(database, settings, runners, size_bytes=16 * least) as disk:
        seen = replace(settings, data=disk.seen)
        wait(lambda: events.bodies(database, job.id, ["candidate_done"]))
        disk.fill(left_bytes=least // RUNNING_SHARE - 2**18)
        stopped = wait(lambda: states_of(database, job)[3:])[0]
        assert (stopped["state"], stopped["cause"]) == ("queued", "disk")
        assert stopped["message"].endswith("MiB are free, and 1 MiB must be; make room")
        # As much as a job needs to go on, and not to begin.
        disk.fill(left_bytes=least - 2**18)
        assert "4 MiB must be; make room" in disk.held()
        assert jobs.get(database, job.id).attempts == 1
        disk.make_room()
        ended = wait_for(database, job, "succeeded", "failed")
        states = [body["state"] for body in states_of(database, job)]
        begun = ["queued", "starting", "running"]
        assert states == [*begun, *begun, "succeeded"]
        if runners == "real":
            shutil.copytree(seen.run_dir(job.id), plain.run_dir(job.id))
        else:
            assert steps(seen, job) == [str(n) for n in range(400)]
    assert ended.retries_left == ended.retries - 1
    if runners == "real":
        undisturbed = jobs.get(database, reference.id)
        check_record(database, plain, ended, undisturbed, cause="disk")

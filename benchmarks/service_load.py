"""The service under load on two cores: live events, answers, memory, open files.

    python benchmarks/service_load.py [--jobs 50] [--watchers 200] [--minutes 5] [--database URL]

A real server (`evomerge serve`, a process of its own) with a full queue of jobs, people who watch
them live, and requests as the page makes them at a fixed rate. The runners are simulated, see
service_load_runners.py; queue, claims, events, database and HTTP are real. Watchers and requests
are in one more process, see service_load_client.py. All of it is bound to two cores.

It checks that every watcher saw every event of its jobs once, in order and as the database keeps
it, and ends with exit code 1 if one did not. A PostgreSQL database of `--database` must be empty;
nothing is removed from it.

`--minutes 60` is the run for a leak: jobs come and end all the time, the memory of the server and
of the process that reads records for it is printed over time, and whether it is flat. The records
of its jobs take some 700 MB of TMPDIR; the memory of the benchmark itself does not grow with time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from service_load_tables import Sample, print_tables

from evomerge.service.database.engine import Database, open_database
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import events

HERE = Path(__file__).parent
ROOT = HERE.parent
MODELS = ROOT / "examples" / "kana" / "models"
RECORD = ROOT / "tests" / "fixtures" / "records_0_1" / "weights.tar.xz"
PEOPLE = ("ana", "ben", "chi", "dai")
CORES = 2
SAMPLE_S = 2.0
START_S = 60.0
EXTRA_S = 600.0
"""Longer than the watchers may take to see the end."""


def main() -> None:
    """Run the load and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=50, help="waiting and running together")
    parser.add_argument("--running", type=int, default=20, help="of them at once")
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--events-per-s", type=float, default=4.0, help="of a running job")
    parser.add_argument("--requests-per-s", type=float, default=20.0)
    parser.add_argument("--figures-every-s", type=float, default=30.0, help="0: never")
    parser.add_argument("--cut-share", type=float, default=0.5, help="of the watchers")
    parser.add_argument("--cut-s", type=float, default=20.0, help="mean time until a cut")
    parser.add_argument("--database", help="a PostgreSQL URL; an embedded database if not given")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    _bind()
    with tempfile.TemporaryDirectory(prefix="service_load_") as folder:
        sys.exit(_measure(options, Path(folder)))


def _bind() -> None:
    """Keep this process and all that it starts on two cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def _measure(options: argparse.Namespace, folder: Path) -> int:
    settings = ServiceSettings(
        data=folder / "data",
        database=options.database,
        slots=0,
        source_folders=(MODELS,),
        least_disk_bytes=0,
        least_memory_bytes=0,
    )
    with tarfile.open(RECORD) as archive:
        archive.extractall(folder, filter="data")
    with contextlib.ExitStack() as close:
        server, port, admin = close.enter_context(_server(settings, folder))
        database = open_database(settings.database_url)
        close.callback(database.close)
        orders = {"url": database.url, "settings": settings.to_json()}
        orders |= {"record": str(folder / "weights"), "slots": options.running}
        orders |= {"events_per_s": options.events_per_s}
        runners = close.enter_context(_ordered("service_load_runners.py", orders))
        _await_line(runners, "ready")
        load = close.enter_context(
            _ordered(
                "service_load_client.py",
                {
                    "port": port,
                    "tokens": [_token(port, admin, person) for person in PEOPLE],
                    "seconds": 60.0 * options.minutes,
                    **{k: v for k, v in vars(options).items() if k not in ("database", "minutes")},
                },
            )
        )
        _await_line(load, "steady")
        samples, shares = _watch_processes(
            {"server": server, "watchers and requests": load, "simulated runners": runners},
            60.0 * options.minutes,
        )
        _await_line(load, "ending")
        said, _ = load.communicate(timeout=EXTRA_S)
        seen = json.loads(said)
        different = _different(database, seen["whole"])
    print_tables(options, seen, different, samples, shares)
    return int(bool(seen["lost"] + seen["doubled"] + seen["disordered"] + different))


@contextlib.contextmanager
def _server(
    settings: ServiceSettings, folder: Path
) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """`evomerge serve` on a free port of the loopback; its process, port and first token."""
    command = [sys.executable, "-c", "from evomerge.cli import main; main()", "serve"]
    command += [str(settings.data), "--port", "0", "--slots", "0", "--allow-source", str(MODELS)]
    if settings.database is not None:
        command += ["--database", settings.database]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment()
        )
        try:
            assert process.stdout is not None
            token = ""
            for line in process.stdout:
                if line.startswith("evm_"):
                    token = line.strip()
                if line.startswith("listening on"):
                    break
            else:
                sys.exit(f"the server did not start: {(folder / 'server.log').read_text()[-2000:]}")
            if not token:
                sys.exit("--database: it holds a service already; give an empty one")
            yield process, int(line.rpartition(":")[2]), token
        finally:
            _end(process)


@contextlib.contextmanager
def _ordered(script: str, orders: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A script beside this one, which reads its orders on standard input."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(orders) + "\n")
        process.stdin.flush()
        yield process
    finally:
        _end(process)


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _await_line(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != wanted:
        sys.exit(f"a process ended before it said `{wanted}`")


def _token(port: int, admin: str, person: str) -> str:
    """A runner's token of a person."""
    wanted = {"name": "load", "person": person, "role": "runner", "projects": ["default"]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/tokens",
        data=json.dumps(wanted).encode(),
        headers={"Authorization": f"Bearer {admin}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=START_S) as answer:
        secret: str = json.load(answer)["secret"]
    return secret


def _watch_processes(
    processes: dict[str, subprocess.Popen[str]], seconds: float
) -> tuple[list[Sample], dict[str, float]]:
    """Samples of the server, and which share of the cores each process took, and all others."""
    watched = {name: psutil.Process(process.pid) for name, process in processes.items()}
    server = watched["server"]
    reader: psutil.Process | None = None
    began = time.monotonic()
    before = {name: _work_s(process) for name, process in watched.items()}
    machine = _busy_s()
    samples = []
    while (at_s := time.monotonic() - began) < seconds:
        reader = _reader_of(server, reader)
        rss, pss, private = _memory_mib(server)
        reading = 0.0 if reader is None else _memory_mib(reader)[2]
        samples.append(
            Sample(
                at_s=at_s,
                rss_mib=rss,
                pss_mib=pss,
                private_mib=private,
                reader_mib=reading,
                files=server.num_fds(),
            )
        )
        time.sleep(min(SAMPLE_S, max(0.01, seconds - at_s)))
    whole_s = CORES * (time.monotonic() - began)
    spent = {name: _work_s(process) - before[name] for name, process in watched.items()}
    spent["all other programs"] = max(0.0, _busy_s() - machine - sum(spent.values()))
    return samples, {name: work_s / whole_s for name, work_s in spent.items()}


def _reader_of(server: psutil.Process, known: psutil.Process | None) -> psutil.Process | None:
    """The process that reads records for the server, once there is one."""
    if known is not None and known.is_running():
        return known
    for child in server.children():
        with contextlib.suppress(psutil.Error):
            if "evomerge.service.http.reading" in child.cmdline():
                return child
    return None


def _memory_mib(process: psutil.Process) -> tuple[float, float, float]:
    """Memory of a process: all, its share of it, and what is its alone; 0 once it has ended."""
    try:
        whole = process.memory_full_info()
    except psutil.Error:
        return 0.0, 0.0, 0.0
    pss = getattr(whole, "pss", whole.uss)  # Linux alone says it
    return whole.rss / 2**20, pss / 2**20, whole.uss / 2**20


def _work_s(process: psutil.Process) -> float:
    """Processor time of a process, of its children that have ended, and of one that reads."""
    times = process.cpu_times()
    own = float(times.user + times.system + times.children_user + times.children_system)
    reader = _reader_of(process, None)
    with contextlib.suppress(psutil.Error):
        if reader is not None:
            own += reader.cpu_times().user + reader.cpu_times().system
    return own


def _busy_s() -> float:
    """Processor time that the two cores have spent."""
    each = psutil.cpu_times(percpu=True)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(CORES)
    return sum(
        sum(each[core]) - each[core].idle - getattr(each[core], "iowait", 0.0) for core in cores
    )


def _different(database: Database, whole: Sequence[tuple[str, int, int]]) -> int:
    """How many watchers saw other events of a job than the database keeps."""
    kept: dict[str, tuple[int, int]] = {}
    for job in {job for job, _, _ in whole}:
        last, check = 0, 0
        while found := events.read(database, job, after=last):
            for event in found:
                body = {"seq": event.seq, "at": event.at, "event": event.name, **event.body}
                text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
                last, check = event.seq, zlib.crc32(text.encode(), check)
        kept[job] = last, check
    return sum(kept[job] != (last, check) for job, last, check in whole)


if __name__ == "__main__":
    main()

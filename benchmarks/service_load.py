"""The service under load on two cores: live events, answers, memory, open files.

    python benchmarks/service_load.py [--jobs 50] [--watchers 200] [--minutes 5] [--database URL]

A real server (`evomerge serve`, a process of its own) with a full queue of jobs, people who watch
them live, and requests as the page makes them at a fixed rate. The runners are simulated, see
service_load_runners.py; queue, claims, events, database and HTTP are real. Watchers and requests
are in one more process, see service_load_client.py. All of it is bound to two cores.

It checks that every watcher saw every event of its jobs once, in order and as the database keeps
it, and ends with exit code 1 if one did not. `--minutes 60` is the run for a leak. A PostgreSQL
database of `--database` must be empty; nothing is removed from it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
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

from evomerge.service.database.engine import Database, open_database
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import events

HERE = Path(__file__).parent
ROOT = HERE.parent
MODELS = ROOT / "examples" / "kana" / "models"
RECORD = ROOT / "tests" / "fixtures" / "records_0_1" / "weights.tar.xz"
PEOPLE = ("ana", "ben", "chi", "dai")
CORES = 2
SAMPLE_S = 1.0
AIM_MEDIAN_MS, AIM_P99_MS = 50.0, 250.0
PAGE_ROUTES = ("list", "job", "status", "candidates", "series")
"""Requests of the fixed rate, by the routes that the page asks."""
START_S = 60.0
EXTRA_S = 600.0
"""Longer than the watchers may take to see the end."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """The server at one moment. at_s: since the load began."""

    at_s: float
    rss_mib: float
    files: int


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
    _print_tables(options, seen, different, samples, shares)
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
    began = time.monotonic()
    before = {name: _work_s(process) for name, process in watched.items()}
    machine = _busy_s()
    samples = []
    while (at_s := time.monotonic() - began) < seconds:
        memory = server.memory_info().rss / 2**20
        samples.append(Sample(at_s=at_s, rss_mib=memory, files=server.num_fds()))
        time.sleep(min(SAMPLE_S, max(0.01, seconds - at_s)))
    whole_s = CORES * (time.monotonic() - began)
    spent = {name: _work_s(process) - before[name] for name, process in watched.items()}
    spent["all other programs"] = max(0.0, _busy_s() - machine - sum(spent.values()))
    return samples, {name: work_s / whole_s for name, work_s in spent.items()}


def _work_s(process: psutil.Process) -> float:
    """Processor time of a process and of its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


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


def slope(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope by least squares and its standard error, which takes samples as independent."""
    times, values = zip(*samples, strict=True)
    fit = statistics.linear_regression(times, values)
    middle = statistics.fmean(times)
    spread = sum((each - middle) ** 2 for each in times)
    rest = sum((v - fit.intercept - fit.slope * t) ** 2 for t, v in samples)
    return fit.slope, (rest / max(1, len(times) - 2) / spread) ** 0.5


def _of(values: Sequence[float], share: float) -> float:
    """A quantile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _print_tables(
    options: argparse.Namespace,
    seen: dict[str, Any],
    different: int,
    samples: Sequence[Sample],
    shares: dict[str, float],
) -> None:
    kind = "SQLite" if options.database is None else "PostgreSQL"
    jobs = len({job for job, _, _ in seen["whole"]})
    print(
        f"{kind}; {options.jobs} jobs in the queue, {options.running} of them running (simulated, "
        f"{options.events_per_s:g} events/s each); {options.watchers} watchers; "
        f"{options.requests_per_s:g} requests/s; {options.minutes:g} minutes\n"
    )
    print("| watchers | |\n|---|---:|")
    print(f"| jobs that were watched to their end | {jobs:,} by {len(seen['whole']):,} views |")
    print(f"| events received | {seen['events']:,} |")
    print(f"| connections cut and resumed | {seen['cut']:,} |")
    for name in ("lost", "doubled", "disordered"):
        print(f"| {name} events | {seen[name]} |")
    print(f"| views that differ from the database | {different} |")
    print(f"| watchers that saw no end in time | {seen['unfinished']} |")
    delays = [1000 * each for each in seen["delays_s"]]
    print(f"| from kept to received, median | {_of(delays, 0.5):.0f} ms |")
    print(f"| from kept to received, p99 | {_of(delays, 0.99):.0f} ms |")
    print("\n| request | answers | median ms | p99 ms | most ms |\n|---|---:|---:|---:|---:|")
    answers: dict[str, list[float]] = seen["answers_s"]
    page = [each for name in PAGE_ROUTES for each in answers.get(name, ())]
    for name, times in [*sorted(answers.items()), ("of the page, together", page)]:
        row = [1000 * _of(times, share) for share in (0.5, 0.99, 1.0)]
        print(f"| {name} | {len(times):,} | " + " | ".join(f"{each:.0f}" for each in row) + " |")
    median, p99 = (1000 * _of(page, share) for share in (0.5, 0.99))
    holds = "met" if median < AIM_MEDIAN_MS and p99 < AIM_P99_MS else "missed"
    print(f"\nAim (median below {AIM_MEDIAN_MS:g} ms, p99 below {AIM_P99_MS:g} ms): {holds}.")
    for name, count in sorted(seen["refused"].items()):
        print(f"Refused: {name}: {count}.")
    print("\n| share of the two cores | |\n|---|---:|")
    for name, share in shares.items():
        print(f"| {name} | {share:.0%} |")
    print("\n| server | at first | at the end | most | slope an hour |\n|---|---:|---:|---:|---:|")
    later = [each for each in samples if each.at_s > samples[-1].at_s / 2]
    for name, column in (("memory, MiB", "rss_mib"), ("open files", "files")):
        values = [getattr(each, column) for each in samples]
        a, error = slope([(each.at_s / 3600, getattr(each, column)) for each in later])
        ends = f"{values[0]:.0f} | {values[-1]:.0f} | {max(values):.0f}"
        print(f"| {name} | {ends} | {a:+.0f} ± {1.96 * error:.0f} |")
    print("\nThe slope is that of the second half, by least squares.")


if __name__ == "__main__":
    main()

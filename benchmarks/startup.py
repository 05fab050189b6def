"""How long the commands take to answer, and which libraries each of them imports.

    python benchmarks/startup.py [--rounds 5]

Wrong input and `status` must be answered at once, so they may import nothing large. Every command
runs in a process of its own: seconds of wall time and of processor time, medians over the rounds,
and the packages that were imported with their share (Python's own -X importtime).
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml
from machine import machine

import evomerge

ROOT = Path(__file__).parents[1]
RUN = "from evomerge.cli import main; main()"
SHOWN = 6
"""Packages shown for a command."""

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.chdir(ROOT)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'command':<24} {'wall s':>7} {'processor s':>12}  imported")
        for name, arguments in commands(Path(folder)).items():
            walls, works = zip(*(timed(arguments) for _ in range(rounds)), strict=True)
            shown = ", ".join(f"{p} {s:.2f} s" for p, s in imported(arguments))
            print(
                f"{name:<24} {statistics.median(walls):>7.2f} "
                f"{statistics.median(works):>12.2f}  {shown}"
            )


def commands(folder: Path) -> dict[str, list[str]]:
    """What is tried; a search of the smallest kind is run first, for `status`."""
    job = yaml.safe_load((ROOT / "examples" / "kana" / "job.yaml").read_text(encoding="utf-8"))
    job["budget"] = {"candidates": 10}
    job["report"] = []
    split = {"search": 0.9, "validation": 0.05, "test": 0.05}
    job["evaluation"] = {**job.get("evaluation", {}), "split": split}
    run_dir = folder / "run"
    evomerge.search(job, run_dir)
    wrong = folder / "wrong.yaml"
    job["objectives"][0]["task"] = "kana_arithmetik_en"
    wrong.write_text(yaml.safe_dump(job), encoding="utf-8")
    key = folder / "key.yaml"
    key.write_text("nmae: kana\n", encoding="utf-8")
    return {
        "--help": ["--help"],
        "a wrong path": ["search", str(folder / "nowhere.yaml")],
        "a wrong key": ["search", str(key)],
        "a wrong flag": ["search", str(wrong), "--runs", "x"],
        "a wrong task": ["search", str(wrong)],
        "a wrong recipe": ["merge", str(key), "--out", str(folder / "out")],
        "status": ["status", str(run_dir)],
        "status --json": ["status", str(run_dir), "--json"],
    }


def timed(arguments: list[str]) -> tuple[float, float]:
    """Seconds of wall time and of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, env=ENVIRONMENT)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imported(arguments: list[str]) -> list[tuple[str, float]]:
    """The packages that take longest to import, and their own seconds."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    seconds: Counter[str] = Counter()
    for own, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s*([\w.]+)", done.stderr):
        seconds[module.split(".")[0]] += int(own)
    return [(package, spent / 1e6) for package, spent in seconds.most_common(SHOWN)]


if __name__ == "__main__":
    main()

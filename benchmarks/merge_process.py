#!/usr/bin/env python3
"""What `evomerge merge` costs as a process, against `mergekit-yaml` making the same merge.

Both run from start to exit on the same models and the same recipes, and write to disk. Models are
Llama-shaped, of random weights in bfloat16: a base and two fine-tuned ones of it. In each round
every contender runs once, in turns, from the same state: the sources in the page cache, nothing of
the last output left, and nothing waiting to be written. Wall time is until the output is on the
disk: evomerge syncs it itself, and what mergekit leaves unsynced is synced within its time.
Processor time is user and system time of the process and its children.

evomerge runs twice in a round: with nothing kept of the models' hashes, as in the first merge of
these files, and with what that run kept. Hashes are kept of files that have not changed for a
minute, so the script waits until the models are as old.

Beside them, the least that any such process pays: Python that imports torch and ends; and a copy of
one model's file, synced.

`--check` compares what both wrote: the share of the weights that are equal.

    python benchmarks/merge_process.py [--size 390M] [--rounds 3] [--methods linear slerp ...]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from machine import machine
from merge_speed import document
from random_checkpoints import SHAPES, write_family

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare_ties")
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cost:
    """Seconds of one run: of the clock until its output is on disk, and of the processor."""

    wall: float
    processor: float


def run(command: Sequence[str], out: Path) -> Cost:
    """The cost of a command that writes into `out`; what was there is removed first."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if out.is_dir():
        sync(out)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall=wall, processor=work)


def sync(folder: Path) -> None:
    """Write a folder's files to the disk."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def warm(folders: Sequence[Path]) -> None:
    """Read the models into the page cache."""
    for folder in folders:
        for file in folder.glob("*.safetensors"):
            with file.open("rb") as stream:
                while stream.read(2**24):
                    pass


def equal_share(ours: Path, theirs: Path) -> float:
    """The share of the weights that are equal in both folders."""
    from safetensors import safe_open

    same = total = 0
    with safe_open(ours / "model.safetensors", "pt") as first:
        places = {
            name: file
            for file in map(str, theirs.glob("*.safetensors"))
            for name in safe_open(file, "pt").offset_keys()
        }
        for name in first.offset_keys():
            a, b = first.get_tensor(name), safe_open(places[name], "pt").get_tensor(name)
            same += int((a == b).sum())
            total += a.numel()
    return same / total


def shown(costs: Sequence[Cost], what: Callable[[Cost], float]) -> str:
    """Least, and the spread: least (median, most)."""
    values = sorted(map(what, costs))
    return f"{values[0]:.2f} ({statistics.median(values):.2f}, {values[-1]:.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SHAPES, default="390M")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mergekit-rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the random checkpoints here")
    parser.add_argument("--check", action="store_true", help="compare what both wrote")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        folder = (chosen.folder or scratch) / chosen.size
        base, experts = write_family(folder, SHAPES[chosen.size], experts=2)
        parameters = SHAPES[chosen.size].parameters
        kept = Path(os.environ.setdefault("XDG_CACHE_HOME", str(scratch / "cache")))
        files = [model / "model.safetensors" for model in (base, *experts)]
        time.sleep(max(0.0, 61 + max(file.stat().st_ctime for file in files) - time.time()))
        print(
            f"{parameters / 1e6:.0f}M weights in bfloat16, two sources and a base; "
            f"{machine()}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}\n"
        )
        out = scratch / "out"
        copied = [str(base / "model.safetensors"), str(out / "model.safetensors")]
        code = f"import os, shutil; os.mkdir({str(out)!r}); shutil.copyfile(*{copied!r})"
        floors = {
            "python, import torch": [sys.executable, "-c", "import torch"],
            "copy of one model": [sys.executable, "-c", code],
        }
        print("| least | wall s | processor s |\n|---|---:|---:|")
        for name, command in floors.items():
            warm([base, *experts])
            costs = [run(command, out) for _ in range(chosen.rounds)]
            print(f"| {name} | {shown(costs, wall_s)} | {shown(costs, processor_s)} |", flush=True)
        print(
            "\n| method | evomerge wall s | mergekit-yaml wall s | times | evomerge processor s "
            "| mergekit-yaml processor s | times |\n|---|---:|---:|---:|---:|---:|---:|"
        )
        for method in chosen.methods:
            recipe = scratch / f"{method}.yaml"
            recipe.write_text(yaml.safe_dump(document(method, base, experts)), encoding="utf-8")
            ours = [str(BIN / "evomerge"), "merge", str(recipe), "--out", str(out)]
            theirs = [str(BIN / "mergekit-yaml"), str(recipe), str(scratch / "out-mergekit")]
            first: list[Cost] = []
            own: list[Cost] = []
            other: list[Cost] = []
            run(ours, out)  # compiles kernels, and asks transformers what it keeps
            for number in range(chosen.rounds):
                shutil.rmtree(kept / "evomerge" / "readings", ignore_errors=True)
                warm([base, *experts])
                first.append(run(ours, out))
                warm([base, *experts])
                own.append(run(ours, out))
                if number < chosen.mergekit_rounds:
                    warm([base, *experts])
                    other.append(run(theirs, scratch / "out-mergekit"))
            for name, costs in ((f"{method}, first", first), (f"{method}, again", own)):
                print(row(name, costs, other), flush=True)
            if chosen.check and other:
                share = equal_share(out, scratch / "out-mergekit")
                print(f"{method}: {share:.6%} of the weights are equal", flush=True)
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(scratch / "out-mergekit", ignore_errors=True)


def row(name: str, own: Sequence[Cost], other: Sequence[Cost]) -> str:
    """A row of the table; without the other's cells where that did not run."""
    cells = [name]
    for what in (wall_s, processor_s):
        cells += [shown(own, what)]
        cells += [shown(other, what), f"{ratio(own, other, what):.1f}"] if other else ["", ""]
    return f"| {' | '.join(cells)} |"


def wall_s(cost: Cost) -> float:
    """Of the clock."""
    return cost.wall


def processor_s(cost: Cost) -> float:
    """Of the processor."""
    return cost.processor


def ratio(own: Sequence[Cost], other: Sequence[Cost], what: Callable[[Cost], float]) -> float:
    """How many times less ours takes, by the least of each."""
    return min(map(what, other)) / min(map(what, own))


if __name__ == "__main__":
    main()

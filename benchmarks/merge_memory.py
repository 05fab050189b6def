#!/usr/bin/env python3
"""Peak of private memory while merging large checkpoints to disk.

A base and two sources of random weights in bfloat16, at least 3 GB each, merged by `evomerge merge`
in a process of its own. Private memory is what the process allocated (RssAnon and RssShmem of
/proc); pages of the mapped source files belong to the page cache and are given back when needed.

    python benchmarks/merge_memory.py [--size 1.6B] [--methods linear ties dare_ties slerp]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from machine import machine
from merge_speed import document
from random_checkpoints import SHAPES, write_family

_INTERVAL_S = 0.005


def private_bytes(process: int) -> int:
    """What a process has allocated and touched; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines)
    return sum(
        1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem") if name in fields
    )


def peak(command: list[str]) -> tuple[int, int, float]:
    """(peak bytes, bytes once everything is imported and before weights are read, seconds)."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    highest = 0
    while process.poll() is None:
        highest = max(highest, private_bytes(process.pid))
        time.sleep(_INTERVAL_S)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return highest, _imports_bytes(), time.perf_counter() - started


def _imports_bytes() -> int:
    """Private memory of a process that has imported what a merge needs, and done nothing."""
    code = (
        "import evomerge.export\n"
        "fields = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(sum(1024 * int(fields[f].split()[0]) for f in ('RssAnon', 'RssShmem')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SHAPES, default="1.6B")
    parser.add_argument("--methods", nargs="+", default=["linear", "ties", "dare_ties", "slerp"])
    parser.add_argument("--folder", type=Path, help="keep the random checkpoints here")
    chosen = parser.parse_args()
    shape = SHAPES[chosen.size]
    largest = max(2 * _elements(dimensions) for _, dimensions in shape.tensors())
    with tempfile.TemporaryDirectory() as scratch:
        base, experts = write_family(
            (chosen.folder or Path(scratch)) / chosen.size, shape, experts=2
        )
        print(
            f"{shape.parameters / 1e9:.2f}G weights, {2 * shape.parameters / 1e9:.2f} GB a model, "
            f"largest tensor {largest / 1e6:.0f} MB; {machine()}\n"
        )
        print("| method | peak private MB | of it after the imports MB | s |")
        print("|---|---:|---:|---:|")
        for method in chosen.methods:
            recipe = Path(scratch) / f"{method}.yaml"
            recipe.write_text(yaml.safe_dump(document(method, base, experts)), encoding="utf-8")
            out = Path(scratch) / f"out-{method}"
            evomerge = str(Path(sys.executable).with_name("evomerge"))
            command = [evomerge, "merge", str(recipe), "--out", str(out)]
            highest, imports, took = peak(command)
            own = highest - imports
            print(f"| {method} | {highest / 1e6:.0f} | {own / 1e6:.0f} | {took:.0f} |", flush=True)
            for file in out.iterdir():
                file.unlink()


def _elements(dimensions: tuple[int, ...]) -> int:
    count = 1
    for dimension in dimensions:
        count *= dimension
    return count


if __name__ == "__main__":
    main()

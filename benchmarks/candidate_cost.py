#!/usr/bin/env python3
"""What a candidate's wall time goes into: decode, merge, forward passes, scoring, record.

Runs candidates of a job through the very loop that a search runs, from a fresh run directory, and
prints the mean of each part as a Markdown table. The search's own baselines warm everything up and
are not counted.

    python benchmarks/candidate_cost.py [--job examples/kana/job.yaml] [--candidates 60]
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from evomerge.candidate import CandidateKey, Step
from evomerge.job import load_job
from evomerge.ledger import Ledger
from evomerge.preparation import pin, prepare
from evomerge.search import run_search
from evomerge.study import create_study
from evomerge.workers.pool import LocalPool


class Clock:
    """An observer that notes when each step of the optimiser's candidates happened."""

    def __init__(self) -> None:
        self.asked_s = 0.0
        self.first_s: float | None = None
        self.last_s = 0.0
        self.record_s = 0.0
        self.tell_s = 0.0
        self._previous_s = 0.0

    def __call__(self, step: Step, key: CandidateKey) -> None:
        """Called by the search after each step."""
        now = time.perf_counter()
        if key.generation > 0:
            if self.first_s is None:
                self.first_s = now
            if step == "recorded":
                self.record_s += now - self._previous_s
            if step == "told":
                self.tell_s += now - self._previous_s
                self.last_s = now
        self._previous_s = now


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=Path, default=Path("examples/kana/job.yaml"))
    parser.add_argument("--candidates", type=int, default=60)
    arguments = parser.parse_args()
    overrides = (f"budget={{candidates: {arguments.candidates}}}", "compute.workers=1")
    preparation = prepare(pin(load_job(arguments.job, overrides=overrides)))
    clock = Clock()
    with (
        tempfile.TemporaryDirectory() as folder,
        create_study(Path(folder) / "run", preparation.job) as study,
        LocalPool(preparation) as pool,
    ):
        run_search(Ledger(preparation=preparation, study=study, pool=pool, observe=clock))
        costs = [trial.cost for trial in study.trials_of("genome")]
    assert clock.first_s is not None
    count = len(costs)
    wall_s = clock.last_s - clock.first_s
    merge_s = sum(cost.merge_s for cost in costs)
    forward_s = sum(cost.forward_s for cost in costs)
    scoring_s = sum(cost.evaluate_s for cost in costs) - forward_s
    rest_s = wall_s - merge_s - forward_s - scoring_s - clock.record_s - clock.tell_s
    rows = [
        ("merge into the live model", merge_s),
        ("forward passes", forward_s),
        ("scoring around them (batches, filters, metrics)", scoring_s),
        ("record (SQLite, Parquet)", clock.record_s),
        ("ask, decode and draw items", rest_s),
        ("fitness from the record and tell", clock.tell_s),
    ]
    items = sum(cost.items for cost in costs) // count
    print(
        f"{count} candidates of {arguments.job}, {items} items each; {platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    print_table(rows, wall_s, count)


def print_table(rows: Sequence[tuple[str, float]], wall_s: float, count: int) -> None:
    """Milliseconds a candidate and share of the wall time."""
    print("| part | ms a candidate | share |\n|---|---:|---:|")
    for name, seconds in [*rows, ("all", wall_s)]:
        print(f"| {name} | {1000 * seconds / count:.1f} | {seconds / wall_s:.1%} |")


if __name__ == "__main__":
    main()

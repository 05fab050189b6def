#!/usr/bin/env python3
"""What a candidate's wall time goes into: decode, merge, forward passes, scoring, record.

Runs candidates of a job through the very loop that a search runs, from a fresh run directory, and
prints the mean of each part as a Markdown table. The search's own baselines warm everything up and
are not counted there; what a search pays once is printed beside it.

    python benchmarks/candidate_cost.py [--job examples/kana/job.yaml] [--candidates 60]
    python benchmarks/candidate_cost.py --random 1.6B --data FOLDER [--candidates 60]

`--random` searches Llama-shaped models of random weights, a base and two experts, in bfloat16, on
two tasks made of the worked questions in FOLDER (`gsm8k/test.jsonl`, `gsm8k/train_400.jsonl`):
multiple choice with five examples and answers of up to 128 tokens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from machine import machine
from random_checkpoints import SHAPES, write_family
from scoring_speed_tasks import save_tokenizer, texts_of, worked_items, write_tasks

from evomerge.evaluate.candidate import CandidateKey, Step
from evomerge.job import load_job
from evomerge.search.ledger import Ledger
from evomerge.search.loop import run_search
from evomerge.study import create_study
from evomerge.workers import worker
from evomerge.workers.pool import LocalPool
from evomerge.workers.preparation.preparation import pin, prepare


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


def random_job(folder: Path, size: str, data: Path, device: str) -> Path:
    """A job over models of random weights and tasks of real questions, all in the folder."""
    shape = SHAPES[size]
    base, experts = write_family(folder / "models", shape, experts=2, device=device)
    train = worked_items(data / "gsm8k/train_400.jsonl")
    test = worked_items(data / "gsm8k/test.jsonl")
    texts = texts_of([*train, *test])
    save_tokenizer([base, *experts], texts, vocabulary=shape.vocabulary)
    write_tasks(folder / "tasks", train=train, test=test, limit_tokens=128, until="Question:")
    document = {
        "name": "random",
        "models": {"base": str(base), "sources": [str(expert) for expert in experts]},
        "search_space": "per_component_task_arithmetic",
        "objectives": [
            {"task": "choice_fixed", "metric": "acc"},
            {"task": "answer_none", "metric": "exact_match"},
        ],
        "evaluation": {
            "task_folders": [str(folder / "tasks")],
            "split": {"search": 0.6, "validation": 0.2, "test": 0.2},
            "items_for_baselines": 32,
            "finalists": 1,
        },
    }
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump(document), encoding="utf-8")
    return job


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=Path, default=Path("examples/kana/job.yaml"))
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--random", choices=SHAPES, help="the size of models of random weights")
    parser.add_argument("--data", type=Path, help="the folder of their questions")
    arguments = parser.parse_args()
    if arguments.random and arguments.data is None:
        parser.error("--random needs --data")
    overrides = (f"budget={{candidates: {arguments.candidates}}}", "compute.workers=1")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock, checks_s = Clock(), list[float]()

    def check(*given: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return plain_check(*given, **options)
        finally:
            checks_s.append(time.perf_counter() - started)

    plain_check = worker.check_candidate
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        job = arguments.job
        if arguments.random:
            job = random_job(folder, arguments.random, arguments.data, device)
        started = time.perf_counter()
        preparation = prepare(pin(load_job(job, overrides=overrides)))
        prepared = time.perf_counter()
        with (
            patch.object(worker, "check_candidate", check),
            create_study(folder / "run", preparation.job) as study,
            LocalPool(preparation) as pool,
        ):
            opened = time.perf_counter()
            run_search(Ledger(preparation=preparation, study=study, pool=pool, observe=clock))
            ended = time.perf_counter()
            costs = [trial.cost for trial in study.trials_of("genome")]
            baselines_s = sum(
                trial.cost.merge_s + trial.cost.evaluate_s for trial in study.trials_of("baseline")
            )
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
    what = f"models of {arguments.random}" if arguments.random else str(job)
    print(f"{count} candidates of {what}, {items} items each; {machine(device)}\n")
    print_table(rows, wall_s, count)
    print(
        f"\nOnce a search: reading, hashing and preparing {prepared - started:.1f} s, worker and "
        f"record {opened - prepared:.1f} s, baselines {baselines_s:.1f} s, self-checks "
        f"{sum(checks_s):.2f} s in {len(checks_s)}; {ended - started:.1f} s in all"
    )


def print_table(rows: Sequence[tuple[str, float]], wall_s: float, count: int) -> None:
    """Milliseconds a candidate and share of the wall time."""
    print("| part | ms a candidate | share |\n|---|---:|---:|")
    for name, seconds in [*rows, ("all", wall_s)]:
        print(f"| {name} | {1000 * seconds / count:.1f} | {seconds / wall_s:.1%} |")


if __name__ == "__main__":
    main()

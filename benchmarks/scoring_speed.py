#!/usr/bin/env python3
"""How many items a second are scored, against stock lm-eval with its best batch size.

Both score the same items with the same model, machine and dtype (float32), in one run. Timed of
stock lm-eval are its model's `loglikelihood` and `generate_until`: tokenising, batching and forward
passes, without loading the model, building the tasks and computing metrics, which it does anew each
time. Timed of ours is a whole `TaskSuite.score`, as every candidate of a search pays it: batching,
forward passes, filters and metrics; tokenising is done once before. In a first round every batch
size of lm-eval's is tried; the best one and ours then take turns, and the fastest round of each
counts. Answers are compared, item by item.

`--continuous` also gives the prompts to transformers' own continuous batching (`generate_batch`).

The models: the demo's base, its context widened to hold five examples; and, where `--data` names a
folder with `gsm8k/test.jsonl` and `gsm8k/train_400.jsonl` (lines with question and answer), a Llama
of random weights whose prompts are those questions; it never ends an answer before the limit, which
is about as long as a worked answer.

    python benchmarks/scoring_speed.py [--items 96] [--rounds 3] [--continuous]
    python benchmarks/scoring_speed.py --data FOLDER [--size 100M] [--continuous]
    python benchmarks/scoring_speed.py --data FOLDER --size 1.6B --device cuda --dtype bfloat16
    python benchmarks/scoring_speed.py --model FOLDER --data FOLDER --task gsm8k_8_shot

`--model` scores a real model on `real_tasks.REAL_TASKS`, and then shows what a candidate's time
goes into: merges of it and of two copies of it with noise.

In bfloat16 rounding decides between near equal tokens, so there answers are counted that differ.
On a machine that is busy otherwise, one thread (`OMP_NUM_THREADS=1`) and `--clock processor`
measure what a quiet one would, but for its shared memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import lm_eval
from candidate_parts import noisy_copies, show_parts
from machine import machine
from random_checkpoints import SHAPES, write_family
from real_tasks import REAL_TASKS, write_real_tasks
from scoring_contenders import CLOCKS, Contenders, Measured
from scoring_speed_tasks import (
    TASKS,
    Item,
    kana_items,
    save_tokenizer,
    texts_of,
    worked_items,
    write_tasks,
)
from scoring_work import machine_limits

CONTEXT_TOKENS = 512
"""Of the demo's base, whose own is too short for five examples."""


def compare(ours: Measured, stock: Measured, *, exact: bool) -> str:
    """The largest difference of a log-likelihood, 0 for texts, and how many answers differ.

    Raises where answers differ that must not.
    """
    largest, others = 0.0, 0
    for our, their in zip(ours.answers, stock.answers, strict=True):
        if isinstance(our, str):
            same = our == their
        else:
            assert not isinstance(their, str)
            same = our[1] == their[1]
            largest = max(largest, abs(our[0] - their[0]))
        others += not same
        assert same or not exact, (our, their)
    return f"{largest:.1e}" + (f", {others} of {len(ours.answers)} answers" if others else "")


def measure(
    contenders: Contenders,
    task: str,
    *,
    items: int,
    batch_sizes: Sequence[int],
    rounds: int,
    continuous: bool,
) -> tuple[Measured, Measured, Measured | None]:
    """Ours, lm-eval's at its best batch size, and transformers' continuous batching if asked for.

    rounds: after the first one, which tries every batch size.
    """
    ours, prompts = contenders.ours(task, items=items)
    stocks = {size: contenders.stock(task, items=items, batch_size=size) for size in batch_sizes}
    size, best = min(stocks.items(), key=lambda stock: stock[1].seconds)
    paged = contenders.generate_batch(prompts) if continuous and prompts else None
    for _ in range(rounds):
        ours.seconds = min(ours.seconds, contenders.ours(task, items=items)[0].seconds)
        again = contenders.stock(task, items=items, batch_size=size)
        best.seconds = min(best.seconds, again.seconds)
        if paged is not None:
            paged.seconds = min(paged.seconds, contenders.generate_batch(prompts).seconds)
    for stock in stocks.values():
        compare(ours, stock, exact=contenders.exact)
    return ours, best, paged


def show(
    contenders: Contenders,
    tasks: Mapping[str, int],
    *,
    batch_sizes: Sequence[int],
    rounds: int,
    continuous: bool,
) -> None:
    """Print both tables of a model; tasks: how many items of each."""
    flops, bytes_ = machine_limits(contenders.device, contenders.dtype)
    print(
        f"{contenders.parameters / 1e6:.1f}M parameters; a plain product of matrices "
        f"makes {flops / 1e12:.2f} TFLOP/s, one of a matrix and a vector reads {bytes_ / 1e9:.1f} "
        "GB/s\n"
    )
    extra = (" generate_batch, items/s |", "---:|") if continuous else ("", "")
    print(
        "| task | examples | items | lm-eval, items/s | evomerge, items/s | ratio "
        f"| largest difference |{extra[0]}\n|---|---|---:|---:|---:|---:|---:|{extra[1]}"
    )
    limits = []
    for task, items in tasks.items():
        ours, best, paged = measure(
            contenders,
            task,
            items=items,
            batch_sizes=batch_sizes,
            rounds=rounds,
            continuous=continuous,
        )
        kind, examples = TASKS.get(task) or (task, str(REAL_TASKS[task].examples))
        line = (
            f"| {kind} | {examples} | {items} | {items / best.seconds:.2f} ({best.how}) "
            f"| {items / ours.seconds:.2f} | {best.seconds / ours.seconds:.2f} "
            f"| {compare(ours, best, exact=contenders.exact)} |"
        )
        if paged is not None:
            compare(ours, paged, exact=contenders.exact)
            line += f" {items / paged.seconds:.2f} |"
        elif continuous:
            line += " |"
        print(line, flush=True)
        for name, measured in (("lm-eval", best), ("evomerge", ours)):
            work = measured.work
            limits.append(
                f"| {kind} | {examples} | {name} | {work.tokens / items:.0f} "
                f"| {work.flops / items / 1e9:.2f} | {work.flops / measured.seconds / flops:.0%} "
                f"| {work.read_bytes / items / 1e6:.1f} "
                f"| {work.read_bytes / measured.seconds / bytes_:.0%} |"
            )
    print(
        "\n| task | examples | scored by | tokens an item | GFLOP an item | of the peak "
        "| MB of weights an item | of the peak |\n|---|---|---|---:|---:|---:|---:|---:|"
    )
    print("\n".join(limits) + "\n")


def demo_model(base: Path, folder: Path) -> None:
    """A copy of the demo's base with a longer context."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = CONTEXT_TOKENS
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def random_model(folder: Path, size: str, items: Sequence[Item], device: str) -> Path:
    """A Llama of random weights with a tokenizer of real token lengths."""
    base, _ = write_family(folder, SHAPES[size], experts=0, device=device)
    save_tokenizer([base], texts_of(items), vocabulary=SHAPES[size].vocabulary)
    return base


def _measure_real(arguments: argparse.Namespace, folder: Path) -> None:
    counts = {"answer": arguments.large_answers, "choice": arguments.large_choices}
    write_real_tasks(folder / "tasks", arguments.data, items=max(counts.values()))
    contenders = Contenders(
        arguments.model,
        folder / "tasks",
        clock=CLOCKS[arguments.clock],
        device=arguments.device,
        dtype=arguments.dtype,
        chat={name for name, task in REAL_TASKS.items() if task.chat},
    )
    tasks = {name: counts[REAL_TASKS[name].kind] for name in arguments.task}
    show(
        contenders,
        tasks,
        batch_sizes=arguments.large_batch_sizes,
        rounds=arguments.large_rounds,
        continuous=arguments.continuous,
    )
    if not arguments.no_parts:
        experts = noisy_copies(arguments.model, folder / "models", count=2)
        show_parts(contenders, arguments.model, experts, tasks)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=96, help="of the demo's tasks")
    parser.add_argument("--rounds", type=int, default=3, help="after the first one")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="what seconds are of")
    parser.add_argument("--continuous", action="store_true", help="measure generate_batch too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--data", type=Path, help="folder of the questions of the larger model")
    parser.add_argument("--size", choices=list(SHAPES), default="100M", help="of that model")
    parser.add_argument("--large-answers", type=int, default=8, help="items that it answers")
    parser.add_argument("--large-choices", type=int, default=3, help="items that it chooses for")
    parser.add_argument("--large-rounds", type=int, default=1, help="after the first one")
    parser.add_argument("--large-batch-sizes", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--answer-tokens", type=int, default=128, help="that it generates")
    parser.add_argument("--model", type=Path, help="a real model; needs --data")
    parser.add_argument("--task", nargs="+", choices=list(REAL_TASKS), default=list(REAL_TASKS))
    parser.add_argument("--no-parts", action="store_true", help="leave the candidate's parts out")
    arguments = parser.parse_args()
    if arguments.model and arguments.data is None:
        parser.error("--model needs --data")
    root = Path(__file__).parents[1]
    logging.disable(logging.WARNING)
    print(
        f"{machine(arguments.device)}, lm-eval {lm_eval.__version__}, {arguments.dtype}, "
        f"{arguments.clock} time\n"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.model:
            _measure_real(arguments, folder)
            return
        if arguments.data is None:
            items = kana_items(root / "evals/kana/data/arithmetic_en.jsonl")
            counts = dict.fromkeys(("choice", "answer"), arguments.items)
            test, train = items[: arguments.items], items[-200:]
            write_tasks(folder / "tasks", train=train, test=test, limit_tokens=6, until="\n")
            model = folder / "model"
            demo_model(root / "examples/kana/models/base", model)
            sizes, rounds = arguments.batch_sizes, arguments.rounds
        else:
            train = worked_items(arguments.data / "gsm8k/train_400.jsonl")
            items = worked_items(arguments.data / "gsm8k/test.jsonl")
            counts = {"choice": arguments.large_choices, "answer": arguments.large_answers}
            write_tasks(
                folder / "tasks",
                train=train,
                test=items[: max(counts.values())],
                limit_tokens=arguments.answer_tokens,
                until="Question:",
            )
            model = random_model(folder, arguments.size, [*train, *items], arguments.device)
            sizes, rounds = arguments.large_batch_sizes, arguments.large_rounds
        show(
            Contenders(
                model,
                folder / "tasks",
                clock=CLOCKS[arguments.clock],
                device=arguments.device,
                dtype=arguments.dtype,
            ),
            {task: counts[TASKS[task][0]] for task in arguments.tasks},
            batch_sizes=sizes,
            rounds=rounds,
            continuous=arguments.continuous,
        )


if __name__ == "__main__":
    main()

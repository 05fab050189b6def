#!/usr/bin/env python3
"""What a candidate's merge costs, against mergekit doing the same and against copying bytes.

A Llama-shaped checkpoint of 390M random weights in bfloat16, two fine-tuned ones of it, files in
the page cache. All are measured side by side in one run: each round copies, merges by one method
in memory, and copies again; mergekit's rounds follow. "Copy bound" is the time to move as many
bytes as the merge reads and writes, at the speed of the copies right before and after it.

    python benchmarks/merge_speed.py [--size 390M] [--rounds 15] [--mergekit-rounds 3]
    python benchmarks/merge_speed.py --scaling    against size and number of sources; draws both
    python benchmarks/merge_speed.py --device cuda --size 1.6B    the same on a GPU
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from machine import machine, wait
from random_checkpoints import SHAPES, write_family

from evomerge.merge.engine import MergeEngine
from evomerge.recipe import Recipe, read_recipe
from evomerge.sources import open_source

Document = dict[str, Any]

READ = {"linear": 2, "slerp": 2, "task_arithmetic": 3, "ties": 3, "dare_ties": 3, "dare_linear": 3}
"""Models that a merge of two sources reads; it writes one."""


def document(method: str, base: Path, experts: Sequence[Path], *, change: float = 0.0) -> Document:
    """A mergekit document with unequal weights; `change` makes another candidate of it."""
    models = [
        {"model": str(expert), "parameters": {"weight": 0.37 + 0.11 * place + change}}
        for place, expert in enumerate(experts)
    ]
    common: Document = {"merge_method": method, "dtype": "float32", "out_dtype": "bfloat16"}
    if method == "linear":
        return {**common, "models": models}
    if method == "slerp":
        other = [{"model": str(experts[1])}]
        return {
            **common,
            "base_model": str(experts[0]),
            "models": other,
            "parameters": {"t": 0.37 + change},
        }
    if method in ("ties", "dare_ties", "dare_linear"):
        for place, model in enumerate(models):
            model["parameters"]["density"] = 0.31 + 0.17 * (place % 3) + change
    return {**common, "base_model": str(base), "models": models}


class Ours:
    """The engine, writing into memory that stays, as a worker's live model does."""

    def __init__(self, base: Path, experts: Sequence[Path], *, device: str = "cpu") -> None:
        self.device = device
        references = [str(path) for path in (base, *experts)]
        self.sources = {name: open_source(name, where="benchmark") for name in references}
        self.engine = MergeEngine(self.sources, device=device)
        self.base = self.sources[str(base)]
        self.names = list(self.base.structure.shapes)
        self.target = {
            name: torch.zeros(shape, dtype=torch.bfloat16, device=device)
            for name, shape in self.base.structure.shapes.items()
        }

    def copy(self) -> None:
        """Copy one model's bytes into the memory that merges write to; on a GPU, within it."""
        for name in self.names:
            if self.device == "cpu":
                self.target[name].copy_(self.base.tensor(name))
            else:
                self.target[name].clone()
        wait(self.device)

    def merge(self, recipe: Recipe) -> None:
        """Build one candidate."""
        for _ in self.engine.execute(recipe, into=self.target.get):
            pass
        wait(self.device)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def recipe_of(text: Document) -> Recipe:
    """Our reading of a document."""
    return read_recipe(yaml.safe_dump(text), where="benchmark")


def mergekit_to_disk(text: Document, device: str) -> None:
    """mergekit's own merge, written to disk."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        options = MergeOptions(
            quiet=True, copy_tokenizer=False, write_model_card=False, cuda=device != "cpu"
        )
        run_merge(MergeConfiguration.model_validate(text), folder, options)


def mergekit_in_memory(text: Document, device: str) -> None:
    """mergekit's own merge without the writing: every merged tensor is made and dropped."""
    from mergekit.architecture import get_architecture_info
    from mergekit.config import MergeConfiguration
    from mergekit.graph import Executor
    from mergekit.io.tasks import LoaderCache
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner

    options = MergeOptions(quiet=True, cuda=device != "cpu")
    config = MergeConfiguration.model_validate(text)
    LoaderCache().setup(options=options)
    architecture = get_architecture_info(config, options)
    first = config.referenced_models()[0].config()
    planner = MergePlanner(config, architecture, options=options, out_model_config=first)
    planner._plan()  # its own plan_in_memory does not run
    executor = Executor(
        [task for _, task in planner._tensors],
        math_device=torch.device(device),
        storage_device=torch.device(device),
    )
    for _, tensor in executor.run(quiet=True):
        tensor.to(torch.bfloat16)
    wait(device)


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 3) -> str:
    """median (min-max)."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle * scale:.{digits}f} ({low * scale:.{digits}f}-{high * scale:.{digits}f})"


def compare(folder: Path, size: str, rounds: int, mergekit_rounds: int, device: str) -> None:
    """Print the table of one size."""
    shape = SHAPES[size]
    base, experts = write_family(folder / size, shape, experts=2, device=device)
    ours = Ours(base, experts, device=device)
    for method in READ:  # compiles kernels, computes facts, fills the page cache
        first = seconds(lambda m=method: ours.merge(recipe_of(document(m, base, experts))))
        print(f"{method}: first candidate {first:.2f} s, with compiling and facts")
    copies: list[float] = []
    times: dict[str, list[float]] = {method: [] for method in READ}
    ratios: dict[str, list[float]] = {method: [] for method in READ}
    for number in range(rounds):
        for method, read in READ.items():
            recipe = recipe_of(document(method, base, experts, change=0.001 * (number + 1)))
            before = seconds(ours.copy)
            took = seconds(lambda r=recipe: ours.merge(r))
            copy = (before + seconds(ours.copy)) / 2
            copies.append(copy)
            times[method].append(took)
            ratios[method].append(took / (copy * (read + 1) / 2))
    gigabytes = 2 * shape.parameters / 1e9
    rate = 2 * gigabytes / statistics.median(copies)
    print(f"\n{shape.parameters / 1e6:.0f}M weights, {gigabytes:.2f} GB a model; {machine(device)}")
    print(f"copy of one model {spread(copies)} s: {rate:.1f} GB/s read and written\n")
    print(
        "| method | candidate s | × copy bound | mergekit to disk s | without writing s | ratios |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for method in READ:
        text = document(method, base, experts)
        row = f"| {method} | {spread(times[method])} | {spread(ratios[method], digits=2)} |"
        disk = [seconds(lambda t=text: mergekit_to_disk(t, device)) for _ in range(mergekit_rounds)]
        memory = [
            seconds(lambda t=text: mergekit_in_memory(t, device)) for _ in range(mergekit_rounds)
        ]
        if mergekit_rounds:
            own = statistics.median(times[method])
            row += f" {spread(disk, digits=1)} | {spread(memory, digits=1)} |"
            row += f" {statistics.median(disk) / own:.0f}, {statistics.median(memory) / own:.0f} |"
        print(row, flush=True)


def scaling(folder: Path, rounds: int, picture: Path) -> None:
    """Time a candidate against size and number of sources; print both and draw them."""
    by_size: dict[str, list[tuple[float, float]]] = {method: [] for method in READ}
    for size in ("50M", "100M", "200M", "390M"):
        base, experts = write_family(folder / size, SHAPES[size], experts=2)
        ours = Ours(base, experts)
        for method in READ:
            by_size[method].append(
                (SHAPES[size].parameters / 1e6, _median_s(ours, method, base, experts, rounds))
            )
    by_count: dict[str, list[tuple[float, float]]] = {method: [] for method in READ}
    base, experts = write_family(folder / "100M", SHAPES["100M"], experts=8)
    for count in (2, 4, 8):
        ours = Ours(base, experts[:count])
        for method in READ:
            if method != "slerp":
                took = _median_s(ours, method, base, experts[:count], rounds)
                by_count[method].append((float(count), took))
    for title, table in (("million weights", by_size), ("sources of 100M", by_count)):
        for method, points in table.items():
            if points:
                cells = ", ".join(f"{x:.0f}: {y * 1e3:.1f} ms" for x, y in points)
                print(f"{method}, {title}: {cells}; straight line R² {_straightness(points):.4f}")
    _draw(by_size, by_count, picture)


def _median_s(ours: Ours, method: str, base: Path, experts: Sequence[Path], rounds: int) -> float:
    ours.merge(recipe_of(document(method, base, experts)))
    return statistics.median(
        seconds(
            lambda n=number: ours.merge(
                recipe_of(document(method, base, experts, change=0.001 * (n + 1)))
            )
        )
        for number in range(rounds)
    )


def _straightness(points: Sequence[tuple[float, float]]) -> float:
    """R² of the least-squares line."""
    xs, ys = zip(*points, strict=True)
    return float(statistics.correlation(xs, ys) ** 2)


def _draw(
    by_size: dict[str, list[tuple[float, float]]],
    by_count: dict[str, list[tuple[float, float]]],
    picture: Path,
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for place, (title, table) in enumerate(
        (("million weights, two sources", by_size), ("sources, 100M weights", by_count))
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        for method, points in table.items():
            if points:
                xs, ys = zip(*points, strict=True)
                axes.plot(xs, [1e3 * y for y in ys], marker="o", label=method)
        axes.set(xlabel=title, ylabel="ms a candidate", xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(picture)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SHAPES, default="390M")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--mergekit-rounds", type=int, default=3)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="not for --scaling"
    )
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--folder", type=Path, help="keep the random checkpoints here")
    parser.add_argument(
        "--picture", type=Path, default=Path(__file__).with_name("merge_scaling.svg")
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder or Path(scratch)
        if chosen.scaling:
            scaling(folder, chosen.rounds, chosen.picture)
        else:
            compare(folder, chosen.size, chosen.rounds, chosen.mergekit_rounds, chosen.device)


if __name__ == "__main__":
    main()

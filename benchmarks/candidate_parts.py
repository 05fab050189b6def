"""What a candidate's time goes into on one model: merging it, forward passes, and the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file
from scoring_contenders import Contenders

from evomerge.merge.engine import MergeEngine
from evomerge.recipe import read_recipe
from evomerge.sources import open_source

_NOISE = 1e-3
"""Of the weights' deviation; the answers stay about as long as the model's own."""


def noisy_copies(model: Path, folder: Path, *, count: int) -> list[Path]:
    """Models like this one, its weights with noise, each in a folder."""
    weights = load_file(model / "model.safetensors")
    copies = []
    for number in range(1, count + 1):
        copy = folder / f"expert{number}"
        copy.mkdir(parents=True)
        (copy / "config.json").write_bytes((model / "config.json").read_bytes())
        chance = torch.Generator().manual_seed(number)
        changed = {
            name: tensor
            + (torch.randn(tensor.shape, generator=chance) * tensor.float().std() * _NOISE).to(
                tensor.dtype
            )
            for name, tensor in weights.items()
        }
        save_file(changed, copy / "model.safetensors", metadata={"format": "pt"})
        copies.append(copy)
    return copies


def show_parts(
    contenders: Contenders, model: Path, experts: Sequence[Path], tasks: Mapping[str, int]
) -> None:
    """Score merges of the model and its experts, and print the parts; tasks: the items of each."""
    references = [str(model), *map(str, experts)]
    sources = {name: open_source(name, where="benchmark") for name in references}
    engine = MergeEngine(sources)
    print("| task | part | s a candidate | share |\n|---|---|---:|---:|")

    def merge(weight: float) -> None:
        recipe = read_recipe(
            yaml.safe_dump(
                {
                    "merge_method": "ties",
                    "base_model": references[0],
                    "dtype": "float32",
                    "models": [
                        {"model": name, "parameters": {"weight": weight, "density": 0.5}}
                        for name in references[1:]
                    ],
                }
            ),
            where="benchmark",
        )
        contenders.engine.load(engine.execute(recipe, into=contenders.engine.destination))

    merge(0.5)  # computes what never changes
    for task, items in tasks.items():
        contenders.ours(task, items=items)  # tokenises
        merge_s = _seconds(lambda: merge(0.6))
        before = contenders.engine.forward_s
        score_s = _seconds(lambda name=task, count=items: contenders.ours(name, items=count))
        forward_s = contenders.engine.forward_s - before
        whole_s = merge_s + score_s
        for part, seconds in (
            ("merge into the live model", merge_s),
            ("forward passes", forward_s),
            ("decoding, batches, filters, metrics", score_s - forward_s),
        ):
            print(f"| {task} | {part} | {seconds:.3f} | {seconds / whole_s:.1%} |", flush=True)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started

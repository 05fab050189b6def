"""Small grids over random checkpoints, tasks made on the spot, and a pool without a model."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from evomerge.evaluate.candidate import (
    Candidate,
    Cost,
    Evaluation,
    Failed,
    Observer,
    Scored,
    TaskItems,
    count_items,
    ignore,
)
from evomerge.grid import GridSpec, parse_grid
from evomerge.workers.pool import Pool
from tests.checkpoints import save_tiny_llama
from tests.search.jobs import TASKS

SOURCES = ("first", "second", "third")
HELD_IN = {"sums_one": "first", "sums_two": "second", "sums_three": "third"}
HELD_OUT = ("sums_other", "sums_rare")


def write_models(folder: Path) -> None:
    """A base and three experts."""
    for seed, name in enumerate(("base", *SOURCES)):
        save_tiny_llama(folder / name, seed=seed, layers=2)


TASK = """
task: NAME
custom_dataset: !function dataset.load
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{[answer, 'cat']}}"
doc_to_target: 0
num_fewshot: 0
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
"""Half of it is right by chance, so that random models have something to divide by."""


def write_tasks(folder: Path) -> None:
    """The sums of the searches' tests under other names; `sums_wrong` is better when lower."""
    folder.mkdir()
    shutil.copy(TASKS / "dataset.py", folder)
    for name in (*HELD_IN, *HELD_OUT):
        (folder / f"{name}.yaml").write_text(TASK.replace("NAME", name))
    wrong = TASK.replace("NAME", "sums_wrong").replace("better: true", "better: false")
    (folder / "sums_wrong.yaml").write_text(wrong)


def grid_document(folder: Path, **changes: Any) -> dict[str, Any]:
    """A grid over those models and tasks, as a user would write it; `changes` replace sections."""
    return {
        "name": "sums-grid",
        "models": {
            "base": str(folder / "base"),
            "sources": [str(folder / name) for name in SOURCES],
        },
        "held_in": [
            {"task": task, "metric": "acc", "expert": expert} for task, expert in HELD_IN.items()
        ],
        "held_out": [{"task": task, "metric": "acc"} for task in HELD_OUT],
        "methods": ["linear", "ties", "dare_ties"],
        "seeds": [0, 1],
        "evaluation": {
            "task_folders": [str(folder / "tasks")],
            "items_per_generation": 12,
            "items_for_baselines": 24,
        },
        "compute": {"device": "cpu"},
        **changes,
    }


def make_grid(folder: Path, **changes: Any) -> GridSpec:
    """The same, read and checked."""
    return parse_grid(yaml.safe_dump(grid_document(folder, **changes)), where="grid.yaml")


EVOLVED: dict[str, Any] = {
    "label": "evolved",
    "search_space": "one_weight_per_model",
    "budget": {"candidates": 8},
    "optimizer": {"population": 4},
}
"""A method that is a search."""


class HashingPool(Pool):
    """Scores by a hash of recipe, task and item; `sums_rare` is right once in fifty items.

    scored: the candidates that came. failing: methods whose merges cannot be scored.
    """

    def __init__(self, *, failing: Sequence[str] = ()) -> None:
        self.scored: list[Candidate] = []
        self._failing = failing

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        for candidate in candidates:
            observe("merged", candidate.key)
            self.scored.append(candidate)
            yield candidate, self._outcome(candidate)

    def _outcome(self, candidate: Candidate) -> Evaluation:
        if candidate.recipe.merge_method in self._failing:
            return Failed(reason="no logits")
        tasks = {
            task: TaskItems(ids=ids, metrics={"acc": _values(candidate, task, ids)})
            for task, ids in candidate.items.items()
        }
        return Scored(tasks=tasks, cost=Cost(items=count_items(candidate.items)))

    def close(self) -> None:
        pass


def _values(candidate: Candidate, task: str, ids: Sequence[int]) -> tuple[float, ...]:
    # Without the folders of models, which are others in every run of the tests.
    text = f"{re.sub(r'/[^ ]*/', '', candidate.recipe.to_yaml())} {task}".encode()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    rate = 0.02 if task == "sums_rare" else 0.7
    outcomes = np.random.default_rng(seed).random(10_000) < rate
    return tuple(float(outcomes[item]) for item in ids)

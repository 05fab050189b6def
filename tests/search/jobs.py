"""A whole small job on random checkpoints, and a pool that scores without a model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from evomerge.evaluate.answers import Answers, ItemAnswer, Question, TaskAnswers
from evomerge.evaluate.candidate import (
    Candidate,
    Cost,
    Evaluation,
    Observer,
    Scored,
    TaskItems,
    count_items,
    ignore,
)
from evomerge.job import JobSpec, parse_job
from evomerge.workers.pool import Pool
from tests.checkpoints import save_tiny_llama

TASKS = Path(__file__).parent / "tasks"


PARAMETERS: dict[str, Any] = {
    "method": "task_arithmetic",
    "layers": "each",
    "parameters": {"weight": {"low": 0.0, "high": 1.5, "start": 0.5}},
}

ROUTES: dict[str, Any] = {
    "routes": {"repeats": 2, "scales": {"per": "hop", "low": 0.5, "high": 2.0}, "max_layers": 5}
}

JOBS: dict[str, dict[str, Any]] = {
    "parameter_space": {},
    "data_flow": {"search_space": ROUTES},
    "hybrid": {
        "search_space": None,
        "stages": [
            {"name": "parameters", "search_space": PARAMETERS, "share": 2},
            {"name": "routes", "search_space": ROUTES},
        ],
    },
    "pareto": {
        "mode": "pareto",
        "optimizer": {"seed": 3, "population": 5},
        "budget": {"candidates": 15},
        "constraints": [{"task": "sums_choice", "metric": "acc", "at_least": 0.3}],
    },
    "pareto_routes": {
        "mode": "pareto",
        "search_space": ROUTES,
        "optimizer": {"seed": 3, "algorithm": "nsga2", "population": 4},
        "budget": {"candidates": 8},
    },
}
"""What each kind of search changes in the job."""


def write_models(folder: Path) -> None:
    """A base and two experts."""
    for seed, name in enumerate(("base", "first", "second")):
        save_tiny_llama(folder / name, seed=seed, layers=2)


def job_document(folder: Path, **changes: Any) -> dict[str, Any]:
    """A job over those models, as a user would write it; `changes` replace whole sections."""
    return {
        "name": "sums",
        "models": {
            "base": str(folder / "base"),
            "sources": [str(folder / "first"), str(folder / "second")],
        },
        "search_space": PARAMETERS,
        "objectives": [
            {"task": "sums_choice", "metric": "acc"},
            {"task": "sums_said", "metric": "exact_match"},
        ],
        "aggregate": "mean",
        "evaluation": {
            "task_folders": [str(TASKS)],
            "items_per_generation": 16,
            "items_for_baselines": 32,
            "finalists": 2,
        },
        "optimizer": {"seed": 3, "population": 4},
        "budget": {"candidates": 12},
        "compute": {"device": "cpu"},
        **changes,
    }


def make_job(folder: Path, **changes: Any) -> JobSpec:
    """The same, read and checked."""
    return parse_job(yaml.safe_dump(job_document(folder, **changes)), where="job.yaml")


class LightPool(Pool):
    """Scores by a hash of recipe, task and item: as repeatable as a model, and immediate."""

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        for candidate in candidates:
            observe("merged", candidate.key)
            tasks = {
                task: TaskItems(
                    ids=ids, metrics={_METRICS.get(task, "acc"): _values(candidate, task, ids)}
                )
                for task, ids in candidate.items.items()
            }
            observe("scored", candidate.key)
            yield (
                candidate,
                Scored(
                    tasks=tasks,
                    cost=Cost(items=count_items(candidate.items)),
                    answers=_answers(tasks) if candidate.keep_answers else {},
                ),
            )

    def close(self) -> None:
        pass


_METRICS = {"sums_choice": "acc", "sums_said": "exact_match"}


def _answers(tasks: Mapping[str, TaskItems]) -> Answers:
    """An answer to every item, that says its score."""
    return {
        task: TaskAnswers(
            items=tuple(
                ItemAnswer(
                    item=item,
                    question=Question(prompt=f"{task} {item}", target="1.0"),
                    text=str(value),
                    characters=3,
                    tokens=1,
                    cut=value == 0.0,
                )
                for item, value in zip(items.ids, next(iter(items.metrics.values())), strict=True)
            )
        )
        for task, items in tasks.items()
    }


def _values(candidate: Candidate, task: str, ids: Sequence[int]) -> tuple[float, ...]:
    # Without the folders of models, which are others in every run of the tests.
    text = f"{re.sub(r'/[^ ]*/', '', candidate.recipe.to_yaml())} {task}".encode()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    outcomes = np.random.default_rng(seed).random(10_000) < 0.5
    return tuple(float(outcomes[item]) for item in ids)

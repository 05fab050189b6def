"""Answers written beforehand, scored by stock lm-eval and by the suite: what both make of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from evomerge.evaluate.engines.base import Continuation, LogLikelihood, Prompt
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer

EVALS = Path(__file__).resolve().parents[2] / "evals"

Scores = dict[str, tuple[float, ...]]
"""A metric as lm-eval prints it -> one value an answer."""


class ScriptedEngine:
    """Says the answers in their order."""

    forward_s = 0.0
    hops = 0
    shared_hops = 0

    def __init__(self, answers: Sequence[str]) -> None:
        self._answers = list(answers)

    def prepare(self, *, longest_tokens: int, longest_scored: int) -> None:
        """Nothing to make ready."""

    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        assert not requests
        return []

    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        assert len(requests) == len(self._answers)
        return self._answers


class ScriptedModel(LM):
    """The same to lm-eval."""

    def __init__(self, answers: Sequence[str]) -> None:
        super().__init__()
        self._answers = list(answers)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        assert len(requests) == len(self._answers)
        return self._answers

    def loglikelihood(self, requests: Any) -> Any:
        raise AssertionError("only generation is scripted")

    loglikelihood_rolling = loglikelihood


def score_by_both(
    task: str, answers: dict[int, str], *, folders: Sequence[Path] = ()
) -> tuple[Scores, Scores]:
    """Scores of these items' answers by stock lm-eval and by the suite, item after item."""
    ids = tuple(sorted(answers))
    said = [answers[item] for item in ids]
    manager = TaskManager(
        include_defaults=False, include_path=[str(folder) for folder in (EVALS, *folders)]
    )
    results = lm_eval.simple_evaluate(
        model=ScriptedModel(said),
        tasks=[task],
        samples={task: list(ids)},
        task_manager=manager,
        bootstrap_iters=0,
    )
    assert results is not None
    rows = results["samples"][task]
    single = len({row["filter"] for row in rows}) == 1
    stock: dict[str, dict[int, float]] = {}
    for row in rows:
        for metric in row["metrics"]:
            key = metric if single else f"{metric},{row['filter']}"
            stock.setdefault(key, {})[row["doc_id"]] = float(row[metric])
    suite = TaskSuite.load([task], folders=list(folders), tokenizer=word_tokenizer())
    ours = suite.score(ScriptedEngine(said), {task: ids})[task]  # type: ignore[arg-type]
    return (
        {key: tuple(values[item] for item in ids) for key, values in stock.items()},
        {key: tuple(values) for key, values in ours.metrics.items()},
    )


def import_file(path: Path) -> ModuleType:
    """A module of a task folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

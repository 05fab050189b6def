"""Where a search over weights begins, and how many items its candidates have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from evomerge.evaluate.candidate import (
    Candidate,
    Cost,
    Evaluation,
    Observer,
    Scored,
    TaskItems,
    ignore,
)
from evomerge.job import EvaluationSpec
from evomerge.search.ledger import Ledger
from evomerge.search.loop import run_search
from evomerge.search.proposer import Proposer, make_proposer
from evomerge.study import create_study
from evomerge.workers.pool import Pool
from evomerge.workers.preparation.preparation import prepare
from tests.search.jobs import make_job, write_models

METRICS = {"sums_choice": "acc", "sums_said": "exact_match"}


class KnownPool(Pool):
    """Solves all items of the merges with these labels, and none of any other."""

    def __init__(self, *best: str) -> None:
        self._best = best

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        for candidate in candidates:
            solved = float(candidate.label in self._best)
            tasks = {
                task: TaskItems(ids=ids, metrics={METRICS[task]: (solved,) * len(ids)})
                for task, ids in candidate.items.items()
            }
            yield candidate, Scored(tasks=tasks, cost=Cost(items=1))

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("best", "began_at"),
    [
        (("first",), "start"),
        (("first", "task arithmetic"), "task arithmetic"),
        (("base",), "start"),
    ],
)
def test_a_search_over_weights_begins_at_a_merge_and_at_no_model_by_itself(
    tmp_path: Path, best: tuple[str, ...], began_at: str
) -> None:
    write_models(tmp_path)
    preparation = prepare(make_job(tmp_path))
    study = create_study(tmp_path / "run", preparation.job)
    ledger = Ledger(preparation=preparation, study=study, pool=KnownPool(*best))
    means: list[np.ndarray] = []

    def propose(ledger: Ledger, thresholds: Sequence[float]) -> Proposer:
        proposer = make_proposer(ledger, thresholds)
        assert proposer.mean is not None
        means.append(proposer.mean)
        return proposer

    run_search(ledger, propose=propose)
    expected = preparation.space.start
    if began_at != "start":
        trials = {trial.label: trial for trial in study.trials_of("baseline")}
        encoded = preparation.space.encode(trials[began_at].recipe)
        assert encoded is not None
        assert not np.array_equal(encoded, expected)
        expected = encoded
    assert means[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "genes", "tasks", "items"),
    [
        ("auto", 9, 3, 64),
        ("auto", 47, 1, 64),
        ("auto", 48, 1, 32),
        ("auto", 192, 9, 72),
        (7, 9, 3, 7),
    ],
)
def test_automatic_items_follow_the_genes_and_reach_every_task(
    given: int | str, genes: int, tasks: int, items: int
) -> None:
    spec = EvaluationSpec.model_validate({"items_per_generation": given})
    assert spec.items_each(genes=genes, tasks=tasks) == items

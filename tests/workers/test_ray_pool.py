"""Two Ray workers give what one process gives, and survive the death of a worker."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evomerge.candidate import Candidate, CandidateKey, Failed, Outcome, Scored
from evomerge.preparation import Preparation, prepare
from evomerge.recipe import Recipe, RecipeModel
from evomerge.workers.opening import open_pool
from evomerge.workers.pool import LocalPool, Pool
from evomerge.workers.ray_pool import RayPool
from tests.searching.jobs import make_job, write_models

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    write_models(folder)
    for name in ("deadly.py", "deadly.yaml"):
        shutil.copy(HERE / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def preparation(folder: Path) -> Preparation:
    job = make_job(
        folder,
        objectives=[{"task": "deadly", "metric": "exact_match"}],
        evaluation={"task_folders": [str(folder)]},
        compute={"device": "cpu", "workers": 2},
    )
    return prepare(job)


@pytest.fixture(scope="module")
def pool(preparation: Preparation) -> Iterator[Pool]:
    with open_pool(preparation) as pool:
        assert isinstance(pool, RayPool)
        yield pool


def candidates(preparation: Preparation, count: int) -> list[Candidate]:
    base, first, second = preparation.sources
    items = {"deadly": preparation.suite.items("deadly", "search")}
    return [
        Candidate(
            key=CandidateKey(1, place),
            kind="genome",
            label=str(place),
            recipe=Recipe(
                merge_method="task_arithmetic",
                base_model=base,
                models=(
                    RecipeModel(model=first, parameters={"weight": 0.1 + 0.2 * place}),
                    RecipeModel(model=second, parameters={"weight": 0.7 - 0.1 * place}),
                ),
                out_dtype="float32",
            ),
            items=items,
        )
        for place in range(count)
    ]


def scores(outcomes: Iterator[tuple[Candidate, Outcome]]) -> dict[CandidateKey, object]:
    found = {}
    for candidate, outcome in outcomes:
        assert isinstance(outcome, Scored), outcome
        assert candidate.key not in found, "scored twice"
        found[candidate.key] = outcome.tasks
    return found


def test_two_workers_give_the_scores_of_one(preparation: Preparation, pool: Pool) -> None:
    asked = candidates(preparation, 5)
    before = torch.get_num_threads()
    with LocalPool(preparation) as alone:
        expected = scores(alone.evaluate(asked))
    torch.set_num_threads(before)
    assert scores(pool.evaluate(asked)) == expected


def test_a_killed_worker_costs_a_retry_and_nothing_else(
    preparation: Preparation, pool: Pool, folder: Path
) -> None:
    asked = candidates(preparation, 4)
    undisturbed = scores(pool.evaluate(asked))
    (folder / "kill-once").touch()
    assert scores(pool.evaluate(asked)) == undisturbed
    assert not (folder / "kill-once").exists(), "no worker was killed"


def test_a_candidate_that_kills_every_worker_is_recorded_as_failed(
    preparation: Preparation, pool: Pool, folder: Path
) -> None:
    (folder / "kill-always").touch()
    try:
        [(_, outcome)] = pool.evaluate(candidates(preparation, 1))
    finally:
        (folder / "kill-always").unlink()
    assert isinstance(outcome, Failed)
    assert "3 times" in outcome.reason
    assert len(scores(pool.evaluate(candidates(preparation, 2)))) == 2

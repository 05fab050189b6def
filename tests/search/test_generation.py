"""A generation: who is scored on what, at what cost, and the same when run again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.evaluate.candidate import (
    Candidate,
    CandidateKey,
    Cost,
    Evaluation,
    Observer,
    Scored,
    TaskItems,
    count_items,
    ignore,
)
from evomerge.search.generation import Generations, ScoredGeneration
from evomerge.search.ledger import Ledger
from evomerge.search.loop import run_search
from evomerge.search.race import join_results
from evomerge.study import Study, create_study, resume_study
from evomerge.workers.pool import Pool
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.search.jobs import job_document, make_job, write_models

EVALUATION = {"items_per_generation": 64, "items_for_baselines": 64, "finalists": 2, "elites": 1}


METRICS = {"sums_choice": "acc", "sums_said": "exact_match"}


class GradedPool(Pool):
    """A merge solves the more items the lower its genes are; each item has a difficulty."""

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        for candidate in candidates:
            quality = 1.0 - float(np.mean(candidate.genome or (0.5,)))
            tasks = {
                task: TaskItems(ids=ids, metrics={METRICS[task]: _solved(ids, quality)})
                for task, ids in candidate.items.items()
            }
            yield candidate, Scored(tasks=tasks, cost=Cost(items=count_items(candidate.items)))

    def close(self) -> None:
        pass


def _solved(ids: Sequence[int], quality: float) -> tuple[float, ...]:
    difficulty = np.random.default_rng(0).random(10_000)
    return tuple(float(difficulty[item] < quality) for item in ids)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def prepared(models: Path, **changes: Any) -> PreparedJob:
    evaluation = {**job_document(models)["evaluation"], **EVALUATION, **changes}
    return prepare(
        make_job(
            models,
            evaluation=evaluation,
            optimizer={"seed": 4, "population": 8},
            budget={"candidates": 40},
        )
    )


def searched(preparation: PreparedJob, run_dir: Path) -> Study:
    opening = resume_study if (run_dir / "job.yaml").exists() else create_study
    study = (
        resume_study(run_dir) if opening is resume_study else create_study(run_dir, preparation.job)
    )
    run_search(Ledger(preparation=preparation, study=study, pool=GradedPool()))
    return study


@pytest.fixture(scope="module")
def raced(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return searched(prepared(models), tmp_path_factory.mktemp("raced") / "run")


@pytest.fixture(scope="module")
def unraced(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    preparation = prepared(models, racing=False)
    return searched(preparation, tmp_path_factory.mktemp("unraced") / "run")


def test_losers_are_stopped_and_what_they_leave_goes_to_others(raced: Study) -> None:
    study = raced
    for generation in range(1, 6):
        counts = [
            trial.item_count
            for trial in study.trials_of("genome")
            if trial.key.generation == generation
        ]
        assert sum(counts) <= 8 * 64
        # The better half is never stopped, so it has at least what is planned for each candidate.
        assert sorted(counts)[3] >= 64
    everyone = [trial.item_count for trial in study.trials_of("genome")]
    assert min(everyone) < 64 < max(everyone)


def test_without_a_race_all_have_the_same_items(unraced: Study) -> None:
    study = unraced
    assert {trial.item_count for trial in study.trials_of("genome")} == {64}
    keys = [trial.key for trial in study.trials_of("genome") if trial.key.generation == 2]
    drawn = [{task: items.ids for task, items in study.items_of(key).items()} for key in keys]
    assert all(one == drawn[0] for one in drawn)


def test_the_best_are_scored_again_on_items_of_each_generation(raced: Study) -> None:
    study = raced
    elites = study.trials_of("elite")
    assert [trial.key for trial in elites] == [CandidateKey(g, 8) for g in range(2, 6)]
    for trial in elites:
        origin = study.trial(CandidateKey.parse(trial.label))
        assert origin.genome == trial.genome
        assert origin.key.generation < trial.key.generation


def test_a_whole_search_stays_within_the_items_that_its_candidates_have_for_certain(
    models: Path, tmp_path: Path
) -> None:
    study = searched(prepared(models, elites=0, growing=True), tmp_path / "run")
    assert sum(t.item_count for t in study.trials_of("genome")) <= 40 * 64
    begun = study.noted("items of generations")
    assert list(begun) == ["1", "2", "3", "4", "5"]
    assert begun["1"] == 32


def test_run_again_over_its_record_it_decides_the_same(models: Path, tmp_path: Path) -> None:
    """Also with another budget: that is no part of a search's identity."""
    preparation = prepared(models, growing=True)
    with searched(preparation, tmp_path / "run") as study:
        before = {trial.key: (trial.genome, trial.items, trial.means) for trial in study.trials}
    with searched(preparation, tmp_path / "run") as study:
        assert {t.key: (t.genome, t.items, t.means) for t in study.trials} == before
    more = make_job(models, **{**preparation.job.model_dump(), "budget": {"candidates": 56}})
    with searched(prepare(more), tmp_path / "run") as study:
        after = {t.key: (t.genome, t.items, t.means) for t in study.trials}
        assert {key: after[key] for key in before} == before
        assert len(study.trials_of("genome")) == 56


def test_a_task_of_few_items_is_not_raced_by_them(models: Path, tmp_path: Path) -> None:
    """One item of a task cannot be resampled: a miss by chance would look sure."""
    study = searched(prepared(models, items_per_generation=14), tmp_path / "run")
    assert {trial.item_count for trial in study.trials_of("genome")} == {14}


def test_a_job_may_ask_for_more_items_than_there_are(models: Path, tmp_path: Path) -> None:
    preparation = prepared(models, items_per_generation=100_000, racing=False)
    study = searched(preparation, tmp_path / "run")
    every = {task: len(preparation.suite.items(task, "search")) for task in METRICS}
    assert all(trial.items == every for trial in study.trials_of("genome"))


def test_a_budget_of_items_is_kept_with_elites_too(models: Path, tmp_path: Path) -> None:
    evaluation = {**job_document(models)["evaluation"], **EVALUATION, "elites": 4}
    job = make_job(
        models,
        evaluation={**evaluation, "items_per_generation": 37},
        optimizer={"seed": 4, "population": 8},
        budget={"items": 2000},
    )
    study = searched(prepare(job), tmp_path / "run")
    spent = [*study.trials_of("genome"), *study.trials_of("elite")]
    assert sum(trial.item_count for trial in spent) <= 2000


def test_no_block_is_left_of_a_candidate_that_is_recorded(raced: Study) -> None:
    assert list((raced.run_dir / "items").iterdir())
    assert not list((raced.run_dir / "items").glob("*block*"))


def test_a_generation_gives_fitness_that_ranks_the_stopped_last(
    models: Path, tmp_path: Path
) -> None:
    preparation = prepared(models)
    study = create_study(tmp_path / "run", preparation.job)
    ledger = Ledger(preparation=preparation, study=study, pool=GradedPool())
    rng = np.random.default_rng(0)
    genomes = rng.random((12, len(preparation.space.genes)))
    scored: ScoredGeneration = Generations(ledger, ()).score(
        1,
        [
            Candidate(
                key=CandidateKey(1, place),
                kind="genome",
                label=str(place),
                recipe=preparation.space.decode(genome),
                items={},
                genome=tuple(genome.tolist()),
            )
            for place, genome in enumerate(genomes)
        ],
        items=64,
    )
    counts = np.array([trial.item_count for trial in scored.trials])
    assert len(set(counts.tolist())) > 1
    order = np.argsort(scored.fitness)
    assert (np.diff(counts[order]) <= 0).all()


def test_results_of_blocks_join_in_the_order_of_items(unraced: Study) -> None:
    whole = unraced.items_of(CandidateKey(1, 0))
    halves = [
        {
            task: type(items)(
                ids=items.ids[part::2],
                metrics={metric: values[part::2] for metric, values in items.metrics.items()},
            )
            for task, items in whole.items()
        }
        for part in (1, 0)
    ]
    assert join_results(halves) == whole

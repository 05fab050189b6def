"""Searches in stages: one budget, one record, whatever a stage delivers and whenever it ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.evaluate.candidate import Candidate, CandidateKey, Cost, Failed
from evomerge.search.ledger import Ledger
from evomerge.search.loop import Ending
from evomerge.search.results.selection import Selection
from evomerge.search.run import run_job
from evomerge.study import create_study, read_study, resume_study
from evomerge.workers.pool import LocalPool, Pool
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob, next_stage
from tests.search.jobs import JOBS, PARAMETERS, LightPool, make_job, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def prepared(models: Path, **changes: Any) -> PreparedJob:
    return prepare(make_job(models, **{**JOBS["hybrid"], **changes}))


def run(
    run_dir: Path, preparation: PreparedJob, *overrides: str, pool: Pool | None = None
) -> tuple[Ending, Selection]:
    """Search, or go on with `overrides`, as the commands do."""
    fresh = not (run_dir / "job.yaml").exists()
    study = (
        create_study(run_dir, preparation.job)
        if fresh
        else resume_study(run_dir, overrides=overrides)
    )
    with study, pool or LightPool() as scoring:
        changed = prepare(study.job) if overrides else preparation
        return run_job(Ledger(preparation=changed, study=study, pool=scoring))


class Stopping(LightPool):
    """Stops like an interrupt once so many candidates were scored."""

    def __init__(self, after: int) -> None:
        self._left = after

    def evaluate(self, candidates: Any, observe: Any = None) -> Any:
        for found in super().evaluate(candidates):
            if self._left == 0:
                raise KeyboardInterrupt
            self._left -= 1
            yield found


class Slow(LightPool):
    """Scores that took an hour each, by what they say."""

    def evaluate(self, candidates: Any, observe: Any = None) -> Any:
        for candidate, outcome in super().evaluate(candidates):
            yield candidate, replace(outcome, cost=Cost(evaluate_s=3600.0))


def stages_of(run_dir: Path) -> dict[int, list[int]]:
    """Stage -> generations of its candidates."""
    with read_study(run_dir) as study:
        found: dict[int, list[int]] = {}
        for trial in study.trials_of("genome"):
            found.setdefault(trial.stage, []).append(trial.key.generation)
        return found


def test_the_stages_share_the_budget_and_count_their_generations_on(
    tmp_path: Path, models: Path
) -> None:
    ending, _ = run(tmp_path / "run", prepared(models, budget={"candidates": 24}))
    # Shares of 2 and 1: 16 candidates of 4 a generation, then 8.
    assert stages_of(tmp_path / "run") == {
        0: [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4,
        1: [5] * 4 + [6] * 4,
    }
    assert (ending.first, ending.last) == (4, 6)


def test_the_record_says_by_which_algorithm_each_stage_was_searched(
    tmp_path: Path, models: Path
) -> None:
    preparation = prepared(models, optimizer={"seed": 3, "population": 4})
    run(tmp_path / "run", preparation)
    with read_study(tmp_path / "run") as study:
        kept = study.noted("algorithms")
    assert kept == {"0": "cma_es", "1": "cat_cma_es"}


def test_more_budget_goes_to_the_last_stage_once_the_first_has_ended(
    tmp_path: Path, models: Path
) -> None:
    preparation = prepared(models)
    run(tmp_path / "run", preparation)
    before = stages_of(tmp_path / "run")
    run(tmp_path / "run", preparation, "budget.candidates=24")
    after = stages_of(tmp_path / "run")
    assert after[0] == before[0]
    assert len(after[0]) + len(after[1]) == 24


def test_less_budget_in_the_first_stage_keeps_what_is_recorded(
    tmp_path: Path, models: Path
) -> None:
    preparation = prepared(models, budget={"candidates": 48})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", preparation, pool=Stopping(after=9 + 22))
    recorded = stages_of(tmp_path / "run")[0]
    run(tmp_path / "run", preparation, "budget.candidates=24")
    stages = stages_of(tmp_path / "run")
    assert stages[0][: len(recorded)] == recorded
    assert max(stages[0]) == max(recorded), "a generation that had begun is finished, no other"
    assert stages[1], "the last stage has one generation at least"


def test_a_stage_has_a_generation_when_the_time_is_up_before_it(
    tmp_path: Path, models: Path
) -> None:
    run(tmp_path / "run", prepared(models, budget={"hours": 1.0}), pool=Slow())
    assert stages_of(tmp_path / "run") == {0: [1] * 4, 1: [2] * 4}


def test_genes_of_one_name_may_have_other_ranges_in_another_stage(
    tmp_path: Path, models: Path
) -> None:
    weight = {"low": 0.1, "high": 1.0, "start": 0.5, "scale": "log"}
    stages = [
        {"name": "one", "search_space": PARAMETERS},
        {"name": "two", "search_space": {**PARAMETERS, "parameters": {"weight": weight}}},
    ]
    run(tmp_path / "run", prepared(models, stages=stages))
    with read_study(tmp_path / "run") as study:
        names = {trial.stage: set(trial.parameters) for trial in study.trials_of("genome")}
    assert all(name.startswith("two/") for name in names[1])
    assert not any("/" in name for name in names[0])


def through_both(models: Path) -> dict[str, Any]:
    """Stages whose routes begin with an original source, and may leave the winner out."""
    routes = {"models": [str(models / "first"), "parameters"]}
    return {
        "stages": [
            {"name": "parameters", "search_space": PARAMETERS},
            {"name": "routes", "search_space": {"routes": routes}},
        ]
    }


def test_routes_that_leave_the_winner_out_are_found_again_in_the_record(
    tmp_path: Path, models: Path
) -> None:
    preparation = prepared(models, **through_both(models), budget={"candidates": 32})
    _, selection = run(tmp_path / "run", preparation)
    with read_study(tmp_path / "run") as study:
        routed = [t.recipe for t in study.trials_of("genome") if t.stage == 1]
    assert {len(recipe.stages) for recipe in routed} == {0, 1}
    _, again = run(tmp_path / "run", preparation)
    assert again == selection


def test_a_worker_opens_the_winner_when_a_later_route_needs_it(models: Path) -> None:
    first = prepared(models, **through_both(models))
    second = next_stage(first, first.space.decode(first.space.start))
    without = second.space.decode(second.space.start)
    switches = [gene.name for gene in second.space.genes]
    genome = second.space.start.copy()
    genome[[name.split(".")[2] == "parameters" for name in switches]] = 1.0
    with_winner = second.space.decode(genome)
    assert (len(without.stages), len(with_winner.stages)) == (0, 1)
    items = {"sums_choice": first.suite.items("sums_choice", "search")[:4]}
    candidates = [
        Candidate(key=CandidateKey(1, place), kind="genome", label="", recipe=recipe, items=items)
        for place, recipe in enumerate((without, with_winner, without))
    ]
    with LocalPool(second) as pool:
        outcomes = {c.key.place: outcome for c, outcome in pool.evaluate(candidates)}
    assert not any(isinstance(outcome, Failed) for outcome in outcomes.values()), outcomes

"""What is told before a search is what the search then scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evomerge.search.forecast import forecast
from evomerge.search.ledger import Ledger
from evomerge.search.run import run_job
from evomerge.study import create_study
from evomerge.workers.preparation.preparation import prepare
from tests.search.jobs import JOBS, TASKS, LightPool, make_job, write_models

KINDS: dict[str, dict[str, Any]] = {
    **JOBS,
    "items": {"budget": {"items": 200}},
    "elites": {
        "evaluation": {
            "task_folders": [str(TASKS)],
            "items_per_generation": 16,
            "items_for_baselines": 32,
            "elites": 2,
            "racing": False,
        }
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pareto_routes"])
def test_a_forecast_is_what_a_search_then_scores(kind: str, models: Path) -> None:
    preparation = prepare(make_job(models, **KINDS[kind]))
    planned = forecast(preparation)
    run_dir = models / kind
    directions = preparation.objective.directions
    with (
        create_study(run_dir, preparation.job, directions=directions) as study,
        LightPool() as pool,
    ):
        ending, _ = run_job(Ledger(preparation=preparation, study=study, pool=pool))
        trials = study.trials
    assert ending.last == sum(stage.generations or 0 for stage in planned.stages)
    assert ending.reason == planned.stages[-1].ends
    for name in ("baselines", "search", "validation", "test"):
        scored = [trial for trial in trials if trial.key.phase == name]
        phases = [phase for phase in planned.phases if phase.phase == name]
        least, most = (sum(phase.models[n] for phase in phases) for n in (0, 1))
        assert least <= len(scored) <= most, (name, least, len(scored), most)
        if name in ("validation", "test"):
            assert {tuple(sorted(trial.items.items())) for trial in scored} == {
                tuple(sorted(phase.items.items())) for phase in phases
            }
    searched = sum(trial.item_count for trial in trials if trial.key.phase == "search")
    told = [phase.total_items[1] for phase in planned.phases if phase.phase == "search"]
    # Races stop at whole blocks, so a little of the last block may be left over.
    assert searched == pytest.approx(sum(told), rel=0.15)


def test_hours_alone_give_generations_once_it_is_known_how_long_a_candidate_takes(
    models: Path,
) -> None:
    preparation = prepare(make_job(models, budget={"hours": 1.0}))
    [stage] = forecast(preparation).stages
    assert stage.generations is None
    assert "search" not in [phase.phase for phase in forecast(preparation).phases]
    [stage] = forecast(preparation, lambda items: 90.0).stages
    assert stage.generations == 10, "four candidates of 90 s are six minutes"
    assert stage.ends == "1.00 of 1 worker hours spent"


@pytest.mark.parametrize(
    ("budget", "generations"),
    [({"hours": 1e6}, 10**7), ({"candidates": 10**9}, 10**9 // 4), ({"items": 64 * 10**9}, 10**9)],
    ids=["hours", "candidates", "items"],
)
def test_a_large_budget_is_told_in_full(
    budget: dict[str, Any], generations: int, models: Path
) -> None:
    job = make_job(models, **KINDS["elites"], budget=budget)
    evaluation = job.evaluation.model_copy(update={"elites": 0})
    preparation = prepare(job.model_copy(update={"evaluation": evaluation}))
    planned = forecast(preparation, lambda items: 90.0)
    [stage] = planned.stages
    assert stage.generations == generations
    [search] = [phase for phase in planned.phases if phase.phase == "search"]
    assert search.models == (4 * generations, 4 * generations)
    assert stage.ends

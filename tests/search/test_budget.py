"""What a search says when its budget ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.job import BudgetSpec
from evomerge.search.budget import Budget
from evomerge.study import create_study
from tests.report.studies import MadeUpSearch, make_job, run_through


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (BudgetSpec(candidates=12), "12 of 12 candidates scored"),
        (BudgetSpec(candidates=15), "12 of 15 candidates scored; a generation of 4 does not fit"),
        (BudgetSpec(candidates=16), None),
        (BudgetSpec(items=2000), "1,512 of 2,000 items scored; a generation of 800 does not fit"),
    ],
)
def test_a_search_says_how_large_the_generation_is_that_does_not_fit(
    tmp_path: Path, budget: BudgetSpec, reason: str | None
) -> None:
    made_up = tmp_path / "run"
    spending = Budget(budget=budget, each=64, population=4)
    with create_study(made_up, make_job(budget={"candidates": 12})) as study:
        search = MadeUpSearch(study, generations=3, population=4)
        for number in (1, 2, 3):
            run_through(search.generation(number))
        assert spending.end(study.trials, 200) == reason

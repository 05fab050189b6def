from __future__ import annotations

from collections.abc import Iterator

import pytest

from evomerge.study import Study, create_study
from tests.report.studies import MadeUpSearch, make_job, run_through


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """Baselines, three generations of four, and the finalists; no selection is noted."""
    run_dir = tmp_path_factory.mktemp("run") / "kana"
    with create_study(run_dir, make_job(budget={"candidates": 12})) as study:
        run_through(MadeUpSearch(study, generations=3, population=4).steps())
        yield study


@pytest.fixture
def new_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    run_dir = tmp_path_factory.mktemp("run") / "kana"
    with create_study(run_dir, make_job(budget={"candidates": 12})) as study:
        yield study

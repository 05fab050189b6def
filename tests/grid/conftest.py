"""Models and tasks of the tests' grids, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evomerge.evaluate.candidate import Candidate, Observer, ignore
from evomerge.grid import GridRun, facts_of_grid, keep_grid, open_grid_study, pin_grid
from evomerge.search.events import Observe, unobserved
from evomerge.study import Study
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.grid.grids import HashingPool, make_grid, write_models, write_tasks

OpenRun = Callable[..., Any]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models and tasks."""
    folder = tmp_path_factory.mktemp("grid")
    write_models(folder)
    write_tasks(folder / "tasks")
    return folder


@pytest.fixture(scope="session")
def prepared(models: Path) -> PreparedJob:
    """What all grids over these models and tasks share."""
    return prepare(pin_grid(make_grid(models)).job())


@contextmanager
def opened(
    run_dir: Path, models: Path, preparation: PreparedJob, pool: HashingPool, **changes: Any
) -> Iterator[GridRun]:
    """A grid over its record, as the command opens it."""
    grid = pin_grid(make_grid(models, **changes))
    with open_grid_study(run_dir, grid, preparation) as study:
        study.note("facts", facts_of_grid(grid, preparation))
        keep_grid(study, grid)
        yield GridRun(
            grid=grid,
            preparation=preparation,
            study=study,
            cache_folder=run_dir / "facts",
            open_pool=lambda _preparation, _folder: pool,
            watch_scoring=watch_nothing,
            watch_search=watch_no_search,
        )


@contextmanager
def watch_nothing(_candidates: list[Candidate]) -> Iterator[Observer]:
    yield ignore


@contextmanager
def watch_no_search(_study: Study) -> Iterator[Observe]:
    yield unobserved

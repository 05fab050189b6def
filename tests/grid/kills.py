"""Kills grids with SIGKILL and runs them again; what came of it is in FOLDER/report.json.

As tests/search/kills.py: a process of its own that forks, so that an instant is the same step of
the same grid every time. The grid has a search among its methods.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evomerge.evaluate.candidate import CandidateKey, Observer, Step
from evomerge.grid import GridRun, facts_of_grid, open_grid_study, pin_grid
from evomerge.search.events import CandidateDone, Event, Observe, Progress
from evomerge.study import read_study
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.grid.grids import EVOLVED, HashingPool, make_grid, write_models, write_tasks
from tests.search.kills import in_fork, was_killed

CHANGES: dict[str, Any] = {
    "methods": ["linear", "dare_ties", {**EVOLVED, "budget": {"candidates": 4}}],
    "experts": {"sizes": [2], "subsets": 1},
    "seeds": [0],
}


def kill_grids(folder: Path, kills: int) -> None:
    """Run undisturbed once; then once for every kill; what differs."""
    write_models(folder)
    write_tasks(folder / "tasks")
    preparation = prepare(pin_grid(make_grid(folder, **CHANGES)).job())
    steps_file = folder / "steps"
    gc.freeze()  # what every fork begins with is no garbage of any
    in_fork(lambda: _run(folder, folder / "undisturbed", preparation, steps_file=steps_file))
    steps = steps_file.read_text().split()
    expected = _contents(folder / "undisturbed")
    report = []
    for number in range(kills):
        at = (2 * number + 1) * len(steps) // (2 * kills)
        run_dir = folder / f"killed-{number:02d}"
        status = in_fork(lambda: _run(folder, run_dir, preparation, die_at=at))  # noqa: B023
        in_fork(lambda: _run(folder, run_dir, preparation))  # noqa: B023
        found = _contents(run_dir)
        report.append(
            {
                "step": steps[at],
                "killed": was_killed(status),
                "differs": [part for part in expected if expected[part] != found[part]],
            }
        )
    result = {"trials": len(expected["trials"]), "kills": report}
    (folder / "report.json").write_text(json.dumps(result))


def _run(
    folder: Path,
    run_dir: Path,
    preparation: PreparedJob,
    *,
    die_at: int | None = None,
    steps_file: Path | None = None,
) -> None:
    steps: list[str] = []

    @contextlib.contextmanager
    def watch(_shown: object) -> Iterator[Observer]:
        def observe(step: Step, _key: CandidateKey) -> None:
            if len(steps) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            steps.append(step)

        yield observe

    @contextlib.contextmanager
    def watch_search(shown: object) -> Iterator[Observe]:
        with watch(shown) as observe:

            def hear(event: Event) -> None:
                if isinstance(event, Progress):
                    observe(event.step, event.candidate)
                elif isinstance(event, CandidateDone):
                    observe("recorded", event.candidate)

            yield hear

    grid = pin_grid(make_grid(folder, **CHANGES))
    with open_grid_study(run_dir, grid, preparation) as study:
        study.note("facts", facts_of_grid(grid, preparation))
        outcome = GridRun(
            grid=grid,
            preparation=preparation,
            study=study,
            cache_folder=run_dir / "facts",
            open_pool=lambda _preparation, _folder: HashingPool(),
            watch_scoring=watch,
            watch_search=watch_search,
        ).run()
    (run_dir / "outcome.json").write_text(json.dumps(outcome.to_json()))
    if steps_file is not None:
        steps_file.write_text(" ".join(steps))


def _contents(run_dir: Path) -> dict[str, Any]:
    """Everything of a record that a kill must not change."""
    with read_study(run_dir) as study:
        return {
            "trials": [
                repr((t.key, t.kind, t.label, t.score, t.means, t.items)) + t.recipe.to_yaml()
                for t in study.trials
            ],
            "items": [repr(study.items_of(trial.key)) for trial in study.trials],
            "searches": json.dumps(study.noted("searches"), sort_keys=True),
            "outcome": (run_dir / "outcome.json").read_text(),
            "folders": sorted(path.name for path in (run_dir / "searches").iterdir()),
        }

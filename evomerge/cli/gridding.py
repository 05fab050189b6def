"""A grid from the command line."""

from __future__ import annotations

from pathlib import Path

from evomerge.cli.beginnings import go_on, keep_check, undone_if_refused
from evomerge.cli.endings import interruptible, say_note
from evomerge.cli.screen import say
from evomerge.grid import (
    GridOutcome,
    GridRun,
    GridSpec,
    facts_of_grid,
    keep_grid,
    open_grid_study,
    work_of,
    write_recipes,
)
from evomerge.preparation import Preparation, sources_digest
from evomerge.report.grid_page import write_grid_page
from evomerge.report.grid_progress import GridProgress
from evomerge.report.grid_tables import grid_lines
from evomerge.workers.opening import open_pool
from evomerge.workers.pool import Pool


def run_grid(
    spec: GridSpec, preparation: Preparation, run_dir: Path, ray_address: str | None, *, again: str
) -> GridOutcome:
    """Score what is missing of a grid; `again` is the command that goes on with it."""
    with open_grid_study(run_dir, spec, preparation) as study, interruptible(again):
        now = facts_of_grid(spec, preparation)
        go_on(study, now, what="grid")
        keep_grid(study, spec)
        for note in preparation.notes:
            say_note(note)
        progress = GridProgress(study)

        def open_workers(ready: Preparation, folder: Path) -> Pool:
            with undone_if_refused(study):
                return open_pool(
                    ready,
                    ray_address=ray_address,
                    facts_folder=folder,
                    say=progress.say,
                    checked=keep_check(study, progress.say),
                )

        run = GridRun(
            grid=spec,
            preparation=preparation,
            study=study,
            facts_folder=run_dir / "facts" / sources_digest(now),
            open_pool=open_workers,
            watch_scoring=progress.scoring,
            watch_search=progress.searching,
        )
        progress.announce(work_of(run))
        outcome = run.run()
        write_recipes(study, preparation)
        write_grid_page(outcome, run_dir=run_dir)
    return outcome


def show_grid(outcome: GridOutcome, run_dir: Path) -> None:
    """Print its tables, and where they and the recipes are."""
    for line in grid_lines(outcome):
        say(line)
    say(f"tables: {run_dir / 'grid.md'}, figures: {run_dir / 'grid.html'}")
    say(f"next: evomerge merge {run_dir / 'recipes' / 'CANDIDATE.yaml'} --out DIR")

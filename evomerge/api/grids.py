"""Grids of merge methods, by number of experts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evomerge.api.arguments import Changes, as_yaml, plain, read_folder, written_changes
from evomerge.api.searches import begin_checks, ignore
from evomerge.errors import JobError

if TYPE_CHECKING:
    from evomerge.evaluate import Say
    from evomerge.grid import GridOutcome, GridSpec, WatchGrid
    from evomerge.search import Observe
    from evomerge.track import Track

Grid: TypeAlias = "str | Path | Mapping[str, Any] | GridSpec"
"""A grid file, its content as a mapping, or a GridSpec."""


def read_grid(grid: Grid, changes: Changes = None) -> GridSpec:
    """Read and check a grid in any of its forms. Raises JobError in one line."""
    from evomerge.grid import GridSpec, load_grid, parse_grid

    if isinstance(grid, GridSpec):
        if changes:
            raise JobError("set: changes a grid file; change the GridSpec itself")
        return grid
    if isinstance(grid, Mapping):
        text = as_yaml(plain(grid, "grid"))
        return parse_grid(text, where="grid", overrides=written_changes(changes))
    return load_grid(Path(grid), overrides=written_changes(changes))


def grid(
    grid: Grid,
    run_dir: str | Path | None = None,
    *,
    set: Changes = None,
    observe: Observe = ignore,
    say: Say | None = None,
    watch: WatchGrid | None = None,
    track: Track = None,
    ray_address: str | None = None,
    trust_code: bool = False,
) -> GridOutcome:
    """Compare merge methods by how many experts they merge, with normalised scores.

    Call it again to continue, also with more methods, sizes or seeds.

    Args:
        grid: path of a grid file, its content as a mapping, or a GridSpec.
        run_dir: where to keep the grid; `runs/NAME` if not given.
        set: changes of the grid.
        observe: called when the grid's models and tasks are checked; its searches report to
            `watch`.
        say: called with each note that a user should read before the work begins.
        watch: makes the progress display, from the record.
        track: as in `search`, for the grid's searches; each is a run, and the grid their group.
        ray_address: as in `search`.
        trust_code: as in `resume`.

    Returns:
        Normalised scores of every method and number of experts.

    Raises:
        InputError, WorkerError, StorageError: as `search`.
    """
    request = read_grid(grid, set)
    file = Path(grid) if isinstance(grid, str | Path) else None
    from evomerge.track import track_searches

    tracked = track_searches(track, group=request.name, say=say or ignore)
    from evomerge.api.arguments import check_names_of
    from evomerge.study import refuse_search

    where = read_folder(Path("runs") / request.name if run_dir is None else run_dir)
    refuse_search(where)
    inside = file is not None and file.resolve().parent == where.resolve()
    if inside and (where / "job.yaml").exists():
        from evomerge.study import check_own

        check_own(where, request.job(), trust=trust_code)
    check_names_of(request.job())
    from evomerge.evaluate import hush
    from evomerge.grid import Unwatched, check_grid, pin_grid, run_grid, write_grid_page
    from evomerge.workers import check_models, prepare

    begin_checks(request.compute, observe, ray_address)
    spec = pin_grid(request)
    preparation = prepare(spec.job())
    check_grid(spec, preparation)
    check_models(preparation)
    outcome = run_grid(
        spec,
        preparation,
        where,
        say=say or hush,
        watch=watch or Unwatched,
        track=tracked,
        ray_address=ray_address,
    )
    write_grid_page(outcome, run_dir=where)
    return outcome

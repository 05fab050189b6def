"""What a run directory holds: a search or a grid, told by its files alone."""

from __future__ import annotations

from pathlib import Path

from evomerge.errors import RunError

GRID_FILE = "grid.yaml"


def refuse_search(run_dir: Path) -> None:
    """Raise RunError where the directory holds a search and no grid."""
    if (run_dir / "job.yaml").exists() and not holds_grid(run_dir):
        raise RunError(f"{run_dir}: holds a search; give the grid another --run-dir")


def refuse_grid(run_dir: Path) -> None:
    """Raise RunError where the directory holds a grid, which is no search."""
    if holds_grid(run_dir):
        raise RunError(
            f"{run_dir}: holds a grid, no search; go on with it, or see its outcome and recipes, "
            f"by `evomerge grid {run_dir / GRID_FILE} --run-dir {run_dir}`"
        )


def holds_grid(run_dir: Path) -> bool:
    """Whether a grid was begun in the directory."""
    return (run_dir / GRID_FILE).exists()

"""The names that a job may have, as plain values: tasks, search spaces, merge methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.evaluate import ListedTask


def found_tasks(
    folders: Sequence[Path] = (), *, part: str = "", every: bool = False
) -> list[dict[str, Any]]:
    """Tasks, groups and tags with their metrics; None for metrics that are known once it is loaded.

    folders: of the user, besides those of evomerge. part: only names with this in them. every: also
    lm-eval's own names, without metrics.
    """
    from evomerge.evaluate import list_own, list_tasks

    word = part.lower()
    found = [plain_task(task) for task in list_tasks(list(folders)) if word in task.name.lower()]
    if every:
        found += [{"name": name, "kind": kind} for name, kind in list_own() if word in name.lower()]
    return found


def plain_task(task: ListedTask) -> dict[str, Any]:
    """A task in plain values."""
    metrics = task.metrics
    return {
        "name": task.name,
        "kind": task.kind,
        "file": str(task.path),
        "metrics": None if metrics is None else [dict(vars(metric)) for metric in metrics],
    }


def found_spaces() -> list[dict[str, Any]]:
    """Search spaces that ship with evomerge, from the fewest genes to the most."""
    from evomerge.space import shipped_spaces

    return [{"name": s.name, "genes": s.genes, "says": s.says} for s in shipped_spaces()]


def found_methods() -> list[dict[str, Any]]:
    """Merge methods: evomerge's own with what they compute, then those of installed packages."""
    from evomerge.merge import DESCRIPTIONS
    from evomerge.registry import offered_names

    rows = [
        {
            "name": name,
            "computes": method.computes,
            "use_for": method.use_for,
            "searchable": method.searchable,
            "package": False,
        }
        for name, method in DESCRIPTIONS.items()
    ]
    installed = [n for n in offered_names("evomerge.merge_methods") if n not in DESCRIPTIONS]
    return [*rows, *({"name": name, "package": True} for name in installed)]

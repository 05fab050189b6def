"""evomerge: evolutionary search for the best merge of fine-tuned language models.

    import evomerge

    result = evomerge.search("job.yaml", "runs/mine")
    result.gain                     # value, low, high, against what; settled or not
    result.scores()                 # a DataFrame: models x tasks, with intervals
    result.export("merged", verify=True)

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from evomerge.version import __version__

if TYPE_CHECKING:
    from evomerge.api import (
        Gain,
        ImportedJob,
        SearchResult,
        Winner,
        calibrate,
        check,
        evaluate,
        export,
        grid,
        import_job,
        merge,
        open_run,
        repair,
        report,
        resume,
        search,
        task_from_file,
    )
    from evomerge.errors import (
        EvomergeError,
        InputError,
        JobError,
        MergeError,
        RecipeError,
        RunError,
        SelfCheckError,
        SourceError,
        StorageError,
        TaskError,
        WorkerError,
    )
    from evomerge.job import JobSpec, load_job
    from evomerge.recipe import Recipe, load_recipe
    from evomerge.service import connect

__all__ = [
    "EvomergeError",
    "Gain",
    "ImportedJob",
    "InputError",
    "JobError",
    "JobSpec",
    "MergeError",
    "Recipe",
    "RecipeError",
    "RunError",
    "SearchResult",
    "SelfCheckError",
    "SourceError",
    "StorageError",
    "TaskError",
    "Winner",
    "WorkerError",
    "__version__",
    "calibrate",
    "check",
    "connect",
    "evaluate",
    "export",
    "grid",
    "import_job",
    "load_job",
    "load_recipe",
    "merge",
    "open_run",
    "repair",
    "report",
    "resume",
    "search",
    "task_from_file",
]

_OFFERED = {
    "evomerge.api": (
        *("calibrate", "check", "evaluate", "export", "grid", "import_job", "merge"),
        *("open_run", "repair", "report", "resume", "search", "task_from_file"),
        *("Gain", "ImportedJob", "SearchResult", "Winner"),
    ),
    "evomerge.errors": (
        *("EvomergeError", "InputError", "JobError", "MergeError", "RecipeError", "RunError"),
        *("SelfCheckError", "SourceError", "StorageError", "TaskError", "WorkerError"),
    ),
    "evomerge.job": ("JobSpec", "load_job"),
    "evomerge.recipe": ("Recipe", "load_recipe"),
    "evomerge.service": ("connect",),
}
"""Module -> its public names; a module is imported when one of its names is first used."""


class _Face(ModuleType):
    """This package; some of its functions have the same name as a room (a subpackage).

    The import system sets a room as an attribute of the package; a property keeps the function.
    """

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


_replaced: dict[str, object] = {}
"""Values that a user's tests have put in place of a name."""


def _offer(name: str, place: str) -> property:
    def find(_face: _Face) -> Any:
        if name in _replaced:
            return _replaced[name]
        return getattr(importlib.import_module(place), name)

    def replace(_face: _Face, value: object) -> None:
        if not isinstance(value, ModuleType):
            _replaced[name] = value

    def restore(_face: _Face) -> None:
        _replaced.pop(name, None)

    return property(find, replace, restore)


for _place, _names in _OFFERED.items():
    for _name in _names:
        setattr(_Face, _name, _offer(_name, _place))
sys.modules[__name__].__class__ = _Face

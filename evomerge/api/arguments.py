"""Reading of the arguments of Python callers: jobs, changes, paths, plain values."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evomerge.documents import DEEPEST, TOO_DEEP
from evomerge.errors import JobError, RunError
from evomerge.recipe import Recipe
from evomerge.sources import locate

if TYPE_CHECKING:
    from evomerge.job import JobSpec

Job: TypeAlias = "str | Path | Mapping[str, Any] | JobSpec"
"""A job file, its content as a mapping, or a JobSpec."""

Changes: TypeAlias = "Mapping[str, Any] | Sequence[str] | None"
"""Changes of a job: {"budget.candidates": 400}, or texts as on the command line."""


def read_folder(path: str | Path) -> Path:
    """The absolute path, so that the program may change its folder later. Raises RunError."""
    try:
        whole = Path(os.path.abspath(path))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.stat(whole)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{str(path)[:300]}: {reason}; check the path") from error
    return whole


def check_rank(rank: object, *, as_adapter: bool) -> None:
    """Raise RunError for a rank that no adapter has."""
    if rank is None:
        return
    if not as_adapter:
        raise RunError("--rank: it is the rank of an adapter; give --as-adapter too")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise RunError(f"--rank: {rank!r} is no rank; give a whole number from 1")


def read_job(job: Job, changes: Changes = None) -> JobSpec:
    """Read and check a job in any of its forms.

    Args:
        job: path of a job file, its content as a mapping, or a JobSpec.
        changes: dotted keys and their new values.

    Raises:
        JobError: in one line, with the field, its value and the mend.
    """
    from evomerge.job import JobSpec, load_job, parse_job

    overrides = written_changes(changes)
    if isinstance(job, str | Path):
        return load_job(Path(job), overrides=overrides)
    if isinstance(job, JobSpec):
        return parse_job(job.to_yaml(), where="job", overrides=overrides) if overrides else job
    return parse_job(as_yaml(plain(job, "job")), where="job", overrides=overrides)


def written_changes(changes: Changes) -> tuple[str, ...]:
    """Changes as the command line writes them: `budget.candidates=400`."""
    if changes is None:
        return ()
    if isinstance(changes, str):
        return (changes,)
    if isinstance(changes, Mapping):
        for key in changes:
            if not isinstance(key, str) or "=" in key:
                raise JobError(f"set: {key}: not a key of a job; write it as section.key")
        return tuple(
            f"{key}={as_yaml(plain(value, key), flow=True)}" for key, value in changes.items()
        )
    if isinstance(changes, Sequence) and all(isinstance(change, str) for change in changes):
        return tuple(changes)
    raise JobError(
        f"set: {type(changes).__name__}: give a mapping, as {{'budget.candidates': 400}}, or "
        "a list of key=value"
    )


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """A value in the plain types of a job file. Raises JobError that names its place."""
    if depth > DEEPEST:
        raise JobError(f"{where[:100]}: {TOO_DEEP}")
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise JobError(f"{where}: {key}: a key of a job must be a text")
        named = value.items()
        return {str(key): plain(each, f"{where}.{key}", depth + 1) for key, each in named}
    if isinstance(value, list | tuple):
        return [plain(each, f"{where}.{n}", depth + 1) for n, each in enumerate(value)]
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise JobError(f"{where}: {value} is not finite; give a finite number")
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise JobError(
        f"{where}: {type(value).__name__}: not a value of a job; give a number, a text, a list or "
        "a mapping"
    )


def as_yaml(document: Any, *, flow: bool = False) -> str:
    """Plain values as YAML; flow: on one line."""
    import yaml

    text = yaml.safe_dump(
        document, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=2**20
    )
    return text.removesuffix("...\n").strip() if flow else text


# Quick checks of a job or a recipe, before the large libraries are imported.
#
# Preparing a job, or planning a merge, checks everything; a wrong name is reported sooner.


def check_names_of(job: JobSpec) -> None:
    """Refuse parts, tasks and models that are missing or unusable. Raises InputError."""
    from evomerge.evaluate import check_names

    job.check_package_algorithms()
    job.check_draws()
    check_names(job.all_tasks, [Path(folder) for folder in job.evaluation.task_folders])
    _check_model(job.models.base, "models.base")
    for place, reference in enumerate(job.models.sources):
        _check_model(reference, f"models.sources.{place}")


def check_models_of(recipe: Recipe) -> list[Path]:
    """The folders of a recipe's models. Raises InputError in one line for one that is missing."""
    found = []
    for name, document in [*recipe.used_stages.items(), ("", recipe)]:
        for place, reference in enumerate(document.references):
            if reference not in recipe.stages:
                found += _check_model(reference, f"{name and f'{name}: '}models.{place}")
    return found


def _check_model(reference: str, where: str) -> list[Path]:
    if "+" in reference:  # MODEL+ADAPTER is split and checked when it is opened
        return []
    return [locate(reference, f"{where}: {reference}")[0]]

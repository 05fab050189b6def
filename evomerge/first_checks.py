"""What can be refused of a job or a recipe in a second, before the large libraries are imported.

Preparing a job, or planning a merge, checks all of it; a wrong name need not wait for that.
"""

from __future__ import annotations

from pathlib import Path

from evomerge.evaluate.task_files import check_names
from evomerge.job import JobSpec
from evomerge.recipe import Recipe
from evomerge.sources.files import locate


def check_names_of(job: JobSpec) -> None:
    """Refuse models and tasks that are not where the job says. Raises InputError in one line."""
    check_names(job.all_tasks, [Path(folder) for folder in job.evaluation.task_folders])
    _check_model(job.models.base, "models.base")
    for place, reference in enumerate(job.models.sources):
        _check_model(reference, f"models.sources.{place}")


def check_models_of(recipe: Recipe) -> None:
    """Refuse models of a recipe that are not where it says. Raises InputError in one line."""
    for name, document in [*recipe.used_stages.items(), ("", recipe)]:
        for place, reference in enumerate(document.references):
            if reference not in recipe.stages:
                _check_model(reference, f"{name and f'{name}: '}models.{place}")


def _check_model(reference: str, where: str) -> None:
    if "+" not in reference:  # where MODEL+ADAPTER is cut is seen when it is opened
        locate(reference, f"{where}: {reference}")

"""What can be refused of a job in a second, before the large libraries are imported.

Preparing a job checks all of it; a wrong path or task name need not wait for that.
"""

from __future__ import annotations

from pathlib import Path

from evomerge.evaluate.task_files import check_names
from evomerge.job import JobSpec
from evomerge.sources.files import locate


def check_names_of(job: JobSpec) -> None:
    """Refuse models and tasks that are not where the job says. Raises InputError in one line."""
    check_names(job.all_tasks, [Path(folder) for folder in job.evaluation.task_folders])
    models = {"base": job.models.base}
    models |= {f"sources.{place}": name for place, name in enumerate(job.models.sources)}
    for field, reference in models.items():
        if "+" not in reference:  # where MODEL+ADAPTER is cut is seen when it is opened
            locate(reference, f"models.{field}: {reference}")

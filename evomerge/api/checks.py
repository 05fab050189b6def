"""The library's check of a job: everything that a search would refuse, and what it would take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.api.arguments import Changes, Job, read_folder, read_job
from evomerge.api.searches import ignore, prepare_new
from evomerge.errors import EvomergeError, InputError, one_line

if TYPE_CHECKING:
    from evomerge.check import CheckReport
    from evomerge.evaluate import Say
    from evomerge.job import JobSpec
    from evomerge.search import Observe

TIMING_S = 20.0
"""Seconds for the timing, once the base is loaded."""


def check(
    job: Job,
    *,
    set: Changes = None,
    within: float = 0.05,
    timing: bool = True,
    observe: Observe = ignore,
    say: Say | None = None,
    ray_address: str | None = None,
) -> CheckReport:
    """Check a job as a search does, and say what the search would score, and about how long.

    Nothing is written.

    Args:
        job: as in `search`.
        set: changes of the job, as in `search`.
        within: how exactly a score near 0.5 is wanted, as half the width of a 95% interval.
        timing: measure the base on a few items of each task, for about 20 seconds, and compare the
            engine with plain transformers as a search does.
        observe: called when the checks begin.
        say: called with what the worker has to say, for example on a shortage of memory.
        ray_address: as in `search`; time and memory are then those of the cluster.

    Returns:
        Models, tasks with items and texts, the phases of the search, time and memory.

    Raises:
        InputError: as `search`, with the same line.
        SelfCheckError, WorkerError: as `search`; only if `timing` is true.

    Example:
        >>> import evomerge
        >>> report = evomerge.check("job.yaml", timing=False)
        >>> ", ".join(task.name for task in report.tasks)
        'sums_choice, sums_said'
        >>> report.forecast.stages[0].generations
        3
    """
    if not 0.0 < within < 0.5:
        raise InputError(f"within: {within:g} is outside (0, 0.5); give a part of 1, as 0.05")
    spec = read_job(job, set)
    preparation = prepare_new(spec, observe, ray_address)
    from evomerge.check import check_job
    from evomerge.evaluate import hush

    report = check_job(
        preparation,
        within=within,
        timing_s=TIMING_S if timing else None,
        say=say or hush,
        ray_address=ray_address,
    )
    return replace(report, notes=(*report.notes, *_notes_on_run(spec)))


def _notes_on_run(spec: JobSpec) -> Iterator[str]:
    """A note if the folder that a search takes by default is in use: `run_dir` names another."""
    from evomerge.study import refuse_existing, refuse_grid

    where = read_folder(Path("runs") / spec.name)
    try:
        refuse_grid(where)
        refuse_existing(where)
    except EvomergeError as error:
        yield one_line(error)

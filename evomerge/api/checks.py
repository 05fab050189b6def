"""The library's check of a job: everything that a search would refuse, and what it would take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.api.arguments import Changes, Job, read_folder, read_job
from evomerge.api.searches import ignore, prepare_new
from evomerge.errors import EvomergeError, InputError, one_line

if TYPE_CHECKING:
    from evomerge.check import CheckReport
    from evomerge.evaluate import Say
    from evomerge.job import DeviceGroup, JobSpec
    from evomerge.search import Observe
    from evomerge.workers import PreparedJob

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
    devices: str | None = None,
    prices: Mapping[str, float] | None = None,
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
        ray_address: as in `search`; not with `devices`.
        devices: plan the search for these, such as "8xH100" or "4xH100,4xA100-40GB": memory, disk,
            work, hours and cost. "CPU" is this machine, which is measured for about 20 seconds. No
            model is loaded and no weight is checked; headers of the models' files are enough.
        prices: of a device for an hour, in US dollars, as {"H100": 2.5}, instead of assumed ones.

    Returns:
        Models, tasks with items and texts, the phases of the search, time and memory. With
        `devices`, the plan instead of time and memory here.

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
    groups = _groups(devices, prices)
    if groups and ray_address is not None:
        raise InputError("ray_address: a plan for devices joins no cluster; leave it out")
    if groups:
        preparation = _prepare_unloaded(spec, observe)
    else:
        preparation = prepare_new(spec, observe, ray_address)
    from evomerge.check import check_job
    from evomerge.evaluate import hush

    report = check_job(
        preparation,
        within=within,
        timing_s=TIMING_S if timing else None,
        say=say or hush,
        devices=groups,
        compute=spec.compute,
    )
    return replace(report, notes=(*report.notes, *_notes_on_run(spec)))


def _groups(devices: str | None, prices: Mapping[str, float] | None) -> tuple[DeviceGroup, ...]:
    """The devices to plan for; none without `devices`. Raises InputError."""
    if devices is None:
        if prices:
            raise InputError("prices: there are no devices to pay for; name devices")
        return ()
    from evomerge.job import read_devices

    return read_devices(devices, prices)


def _prepare_unloaded(spec: JobSpec, observe: Observe) -> PreparedJob:
    """Prepare a job for other devices than this machine's. Raises InputError.

    What concerns this machine is left out (its device, workers and engine), and so is every check
    that reads weights.
    """
    from evomerge.api.arguments import check_names_of

    check_names_of(spec)
    from evomerge.search import Checking
    from evomerge.workers import pin, prepare

    here = spec.compute.model_copy(update={"device": "auto", "workers": 1})
    observe(Checking())
    preparation = prepare(pin(spec.model_copy(update={"compute": here})))
    preparation.check_rows()
    return preparation


def _notes_on_run(spec: JobSpec) -> Iterator[str]:
    """A note if the folder that a search takes by default is in use: `run_dir` names another."""
    from evomerge.study import refuse_existing, refuse_grid

    where = read_folder(Path("runs") / spec.name)
    try:
        refuse_grid(where)
        refuse_existing(where)
    except EvomergeError as error:
        yield one_line(error)

"""Chooses the pool of a job: how many workers, and whether they are in this process."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch

from evomerge.errors import JobError
from evomerge.evaluate import Say, hush
from evomerge.job import ComputeSpec
from evomerge.workers.dispatch import Patience
from evomerge.workers.engines import engine_errors, engine_of
from evomerge.workers.pool import LocalPool, Pool
from evomerge.workers.preparation.prepared_job import PreparedJob
from evomerge.workers.worker import Checked, choose_device, forget


def count_workers(compute: ComputeSpec) -> int:
    """Workers a job runs with here: as many as it says, else one for each GPU, else one."""
    if isinstance(compute.workers, int):
        return compute.workers
    if choose_device(compute.device).startswith("cuda"):
        return max(1, torch.cuda.device_count())
    return 1


def check_workers(compute: ComputeSpec, *, ray_address: str | None = None) -> None:
    """Raise JobError when the job's engine, or the Ray that its workers need, is not installed.

    A cluster is joined, and refused if it does not answer or has no room for the workers.
    """
    check_engine(compute)
    workers = count_workers(compute)
    if workers == 1 and ray_address is None:
        return
    if importlib.util.find_spec("ray") is None:
        raise JobError(
            "compute.workers: more than one worker, or a cluster, needs Ray; install the extra "
            "`ray` (pip install 'evomerge[ray]', in a checkout '.[ray]'), or set it to 1"
        )
    if ray_address is not None:
        set_up_ray(local=False)
        from evomerge.workers.ray_pool import check_cluster

        check_cluster(compute, ray_address, workers=workers)


def set_up_ray(*, local: bool) -> None:
    """Set what Ray reads in the environment when it is imported.

    Otherwise its messages about the session would go to stdout, where results go.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    if local:  # everything listens on 127.0.0.1, on Linux too
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def check_engine(compute: ComputeSpec) -> None:
    """Raise JobError when the job's engine is not installed; imports nothing of the engine."""
    engine = engine_of(compute)
    with engine_errors(engine, "say whether it is installed"):
        engine.check_installed()


def check_models(preparation: PreparedJob) -> None:
    """Raise InputError when the job's engine is not installed or does not serve its models.

    Also if its tasks have tokens that a model has no rows for, or a weight is not finite: every
    byte is read, and hashed for later. Nothing is started, so this can run before a search has a
    folder.
    """
    for source in preparation.sources.values():
        source.sha256()
    compute = preparation.job.compute
    check_engine(compute)
    engine = engine_of(compute)
    with engine_errors(engine, "check the job"):
        engine.check_job(preparation, device=choose_device(compute.device))
    preparation.check_rows()


def open_pool(
    preparation: PreparedJob,
    *,
    ray_address: str | None = None,
    cache_folder: Path | None = None,
    say: Say = hush,
    checked: Checked = forget,
    patience: Patience | None = None,
) -> Pool:
    """The pool of a job: in process for one worker, Ray actors for more or on a cluster.

    cache_folder: where workers keep large arrays, such as sorted magnitudes. say: called with
    problems that are tried again, such as a lost worker. checked: called with self-checks that
    passed. patience: with the workers of Ray.
    Raises InputError if the job's engine does not serve its models.
    """
    check_models(preparation)
    compute = preparation.job.compute
    workers = count_workers(compute)
    if workers == 1 and ray_address is None:
        return LocalPool(preparation, cache_folder=cache_folder, say=say, checked=checked)
    set_up_ray(local=ray_address is None)
    from evomerge.workers.ray_pool import RayPool

    return RayPool(
        preparation,
        workers=workers,
        address=ray_address,
        cache_folder=cache_folder,
        say=say,
        checked=checked,
        patience=patience,
    )

"""Chooses the pool of a job: how many workers, and whether they are in this process."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from evomerge.errors import JobError
from evomerge.evaluate import Say, hush
from evomerge.job import ComputeSpec
from evomerge.workers.devices import choose_device
from evomerge.workers.dispatch import Patience
from evomerge.workers.engines import engine_errors, engine_of
from evomerge.workers.pool import LocalPool, Pool
from evomerge.workers.preparation.prepared_job import PreparedJob
from evomerge.workers.worker import Checked, forget

if TYPE_CHECKING:
    from evomerge.workers.cluster import Share
    from evomerge.workers.cluster_process import ClusterProcess


def share_there(
    device: str,
    gpus: float | Literal["auto"] = "auto",
    *,
    ray_address: str,
    field: str = "compute.device",
) -> Share:
    """What a worker takes of a node of the cluster at an address, which is joined.

    device, gpus: as a job says them. field: how messages name the device. Raises JobError.
    """
    _check_ray()
    set_up_ray()
    from evomerge.workers.cluster import share_of

    return share_of(device, gpus, address=ray_address, field=field)


def open_process(
    make: Callable[[], object], share: Share, *, ray_address: str, say: Say = hush
) -> ClusterProcess:
    """A process on the cluster at an address, with the object that `make` makes there."""
    from evomerge.workers.cluster_process import ClusterProcess

    return ClusterProcess(make, address=ray_address, share=share, say=say)


def device_of(compute: ComputeSpec, *, ray_address: str | None = None) -> str:
    """The device of a job's workers: of this machine, or of the machines of a cluster.

    Raises JobError if they have no such device.
    """
    if ray_address is None:
        return choose_device(compute.device)
    share = share_there(compute.device, compute.gpus_per_worker, ray_address=ray_address)
    return share.device


def count_workers(compute: ComputeSpec, *, ray_address: str | None = None) -> int:
    """Workers a job runs with: as many as it says, else one for each GPU, else one."""
    if isinstance(compute.workers, int):
        return compute.workers
    if ray_address is not None:
        share = share_there(compute.device, compute.gpus_per_worker, ray_address=ray_address)
        from evomerge.workers.cluster import count_workers_there

        return count_workers_there(share)
    if choose_device(compute.device).startswith("cuda"):
        return max(1, torch.cuda.device_count())
    return 1


def _check_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise JobError(
            "compute.workers: more than one worker, or a cluster, needs Ray; install the extra "
            "`ray` (pip install 'evomerge[ray]', in a checkout '.[ray]'), or set it to 1"
        )


def check_workers(compute: ComputeSpec, *, ray_address: str | None = None) -> None:
    """Raise JobError when the job's engine, its device or the Ray that it needs is not there.

    A cluster is joined, and refused if it does not answer or has no room for the workers.
    """
    check_engine(compute)
    if ray_address is None:
        choose_device(compute.device)
        if count_workers(compute) > 1:
            _check_ray()
        return
    share = share_there(compute.device, compute.gpus_per_worker, ray_address=ray_address)
    from evomerge.workers.cluster import check_room

    workers = count_workers(compute, ray_address=ray_address)
    check_room(workers=workers, gpus=share.gpus, where=f"the cluster at {ray_address}")


def set_up_ray() -> None:
    """Set what Ray reads in the environment when it is imported.

    Otherwise its messages about the session would go to stdout, where results go.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")


def check_engine(compute: ComputeSpec) -> None:
    """Raise JobError when the job's engine is not installed; imports nothing of the engine."""
    engine = engine_of(compute)
    with engine_errors(engine, "say whether it is installed"):
        engine.check_installed()


def check_models(preparation: PreparedJob, *, ray_address: str | None = None) -> None:
    """Raise InputError when the job's engine is not installed or does not serve its models.

    Also if its tasks have tokens that a model has no rows for, or a weight is not finite: every
    byte is read, and hashed for later. Nothing is started, so this can run before a search has a
    folder. ray_address: of the cluster that has the devices.
    """
    for source in preparation.sources.values():
        source.sha256()
    compute = preparation.job.compute
    check_engine(compute)
    engine, device = engine_of(compute), device_of(compute, ray_address=ray_address)
    with engine_errors(engine, "check the job"):
        engine.check_job(preparation, device=device)
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
    check_models(preparation, ray_address=ray_address)
    workers = count_workers(preparation.job.compute, ray_address=ray_address)
    if workers == 1 and ray_address is None:
        return LocalPool(preparation, cache_folder=cache_folder, say=say, checked=checked)
    set_up_ray()
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


def open_one_worker(
    preparation: PreparedJob,
    *,
    make: Callable[[], PreparedJob] | None = None,
    ray_address: str | None = None,
    say: Say = hush,
) -> Pool:
    """A pool of one worker, whatever the job says: in process, or on a cluster.

    make: makes the preparation again, in a process on the cluster; its job's if not given. say: as
    in `open_pool`. The models are not checked.
    """
    if ray_address is None:
        return LocalPool(preparation, say=say)
    set_up_ray()
    from evomerge.workers.ray_pool import RayPool

    return RayPool(preparation, workers=1, address=ray_address, make=make, say=say)

"""What a worker takes of a machine, here or on a Ray cluster: a device, GPUs, threads.

The machines of a cluster are asked, and not this one: the one that a command runs on may have no
GPU.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from evomerge.errors import EvomergeError, JobError, WorkerError
from evomerge.workers.devices import choose_device, is_usable
from evomerge.workers.ray_session import join_cluster, nodes, own_node


@dataclass(frozen=True, kw_only=True)
class Share:
    """The device of a worker, and the GPUs or the share of one that it takes."""

    device: str
    gpus: float = 0.0


def share_of(
    device: str,
    gpus: float | Literal["auto"] = "auto",
    *,
    address: str | None,
    field: str = "compute.device",
) -> Share:
    """What every worker takes, here or on the cluster at an address, which is joined.

    device, gpus: as in a job's `compute.device` and `compute.gpus_per_worker`. field: how messages
    name the device. Raises JobError.
    """
    if address is None:
        device = choose_device(device)
    else:
        join_cluster(address)
        has_gpus = any(_counted(machine, "GPU") for machine in _alive())
        if device == "auto":
            device = "cuda" if has_gpus else "cpu"
        elif device.startswith("cuda:"):
            raise JobError(f"{field}: {device}: Ray gives GPUs to workers; write auto or cuda")
        elif device.startswith("cuda") and not has_gpus:
            raise JobError(
                f"{field}: {device}: no machine of the cluster at {address} has a GPU; write auto "
                "or cpu"
            )
    if not device.startswith("cuda"):
        return Share(device=device)
    share = 1.0 if gpus == "auto" else gpus
    if share > 1.0 and not share.is_integer():
        raise JobError(
            f"compute.gpus_per_worker: {share:g} is above 1 and not whole; give whole GPUs, or a "
            "share of one"
        )
    return Share(device=device, gpus=share)


@contextlib.contextmanager
def naming_node(address: str | None) -> Iterator[None]:
    """Within, in a process on a cluster, errors for a user say on which node they are."""
    try:
        yield
    except EvomergeError as error:
        if address is None:
            raise
        raise type(error)(f"on the node {own_node()}: {error}") from error


def work_in(folder: str) -> None:
    """Work in the folder of the command, so that relative paths mean the same on this node.

    Where this node has no such folder, they mean nothing.
    """
    os.chdir(folder if os.path.isdir(folder) else "/")


def check_seen(device: str) -> None:
    """Raise WorkerError, in a worker, if torch does not see the GPU that Ray gave it."""
    if device.startswith("cuda") and not is_usable(device):
        raise WorkerError(
            f"Ray counts GPUs there, and torch sees no {device}; install a torch for them, or set "
            "the device to cpu"
        )


def check_room(*, workers: int, gpus: float, where: str) -> None:
    """Raise JobError when the machines there cannot hold so many workers."""
    room = count_room(nodes(), gpus=gpus)
    if workers > room:
        each = f" with {gpus:g} GPUs each" if gpus else ""
        raise JobError(
            f"compute.workers: {workers} workers{each} do not fit: {where} has room for "
            f"{room}; set it to {max(1, room)}, or give it more machines"
        )


def count_room(machines: list[Mapping[str, Any]], *, gpus: float) -> int:
    """How many workers of one processor and `gpus` GPUs each fit on the machines that are alive."""
    room = 0
    for machine in machines:
        if not machine["Alive"]:
            continue
        fit = int(_counted(machine, "CPU"))
        if 0.0 < gpus < 1.0:  # a share is of one GPU
            fit = min(fit, int(_counted(machine, "GPU")) * int(1.0 / gpus + 1e-9))
        elif gpus:
            fit = min(fit, int(_counted(machine, "GPU") / gpus))
        room += fit
    return room


def count_workers_there(share: Share) -> int:
    """Workers of a job that does not say how many, on a cluster: one for each GPU, else one."""
    return max(1, count_room(nodes(), gpus=max(1.0, share.gpus))) if share.gpus else 1


def count_workers_on(node: str, share: Share) -> int:
    """How many workers fit on the node of that name."""
    return count_room(
        [machine for machine in nodes() if machine["NodeName"] == node], gpus=share.gpus
    )


def count_machines() -> int:
    """How many machines of the session are alive."""
    return len(_alive())


def _alive() -> list[Mapping[str, Any]]:
    return [machine for machine in nodes() if machine["Alive"]]


def _counted(machine: Mapping[str, Any], resource: str) -> float:
    return float(machine["Resources"].get(resource, 0.0))


@dataclass(frozen=True, kw_only=True)
class Threads:
    """Threads that torch has in a worker: counted here, set there.

    A worker on a machine like this one has as many as this process, so that sums have the same
    order; on another machine it has the same part of the processors. Ray itself would give it one.
    here: of this process. processors: of this machine. chosen: whether a user has set the number.
    sharing: workers on a machine.
    """

    here: int
    processors: int
    chosen: bool
    sharing: int

    @classmethod
    def like_here(cls, *, workers: int = 1, machines: int = 1) -> Threads:
        """As in this process, for so many workers on so many machines."""
        return cls(
            here=torch.get_num_threads(),
            processors=os.cpu_count() or 1,
            chosen="OMP_NUM_THREADS" in os.environ,
            sharing=-(-workers // max(1, machines)),
        )

    def take(self) -> None:
        """Set them for the calling thread of a worker."""
        there = self.here
        if not self.chosen:
            there = round(self.here * (os.cpu_count() or 1) / self.processors)
        torch.set_num_threads(max(1, there // self.sharing))

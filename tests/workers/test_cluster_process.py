"""A process on a node of a cluster, and which devices a cluster is said to have.

The cluster is the session of Ray that the tests of the pool begin with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

from evomerge.errors import JobError, TaskError, WorkerError
from evomerge.job import ComputeSpec
from evomerge.workers import pool_choice
from evomerge.workers.pool_choice import check_workers, count_workers, device_of
from tests.workers.node_work import Work

if TYPE_CHECKING:
    from evomerge.workers.cluster_process import ClusterProcess
    from evomerge.workers.ray_session import RaySession

ADDRESS = "127.0.0.2:6379"


@pytest.fixture(scope="module")
def process(first_session: RaySession) -> Iterator[ClusterProcess]:
    from evomerge.workers.cluster import Share

    share = Share(device="cpu")
    with pool_choice.open_process(Work, share, ray_address=ADDRESS) as process:
        yield process


def test_news_come_in_order_and_the_answer_last(process: ClusterProcess) -> None:
    told: list[int] = []
    answer = process.call("count", 50, tell=told.append)
    assert told == list(range(50))
    assert answer == [os.getcwd(), "token"]
    assert len(process.ask("block", 2**20)) == 2**20


@pytest.mark.parametrize(
    ("method", "kind", "text"),
    [
        ("refuse", TaskError, "on the node {}: task sums: no such task; check the name"),
        ("fail", WorkerError, "on the node {}: LookupError: no such word"),
        ("run_short", WorkerError, "the node {} ran short (MemoryError: no room); free memory"),
    ],
)
def test_an_error_there_is_one_here_that_names_the_node(
    process: ClusterProcess, method: str, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as told:
        process.call(method)
    assert type(told.value) is kind
    assert str(told.value).startswith(text.format(process.node))
    assert process.call("count", 1), "it goes on"


def test_a_process_that_dies_ends_the_work_in_one_line(process: ClusterProcess) -> None:
    with pytest.raises(WorkerError, match=rf"^the process on the node {process.node} is gone, or"):
        process.call("die")
    assert not psutil.pid_exists(process.process_id)


def test_a_node_whose_torch_does_not_see_its_gpu_is_refused(first_session: RaySession) -> None:
    from evomerge.workers.cluster import Share

    with pytest.raises(WorkerError, match=r"^on the node .*: Ray counts GPUs there, and torch"):
        pool_choice.open_process(Work, Share(device="cuda"), ray_address=ADDRESS)


def machine(**resources: float) -> dict[str, Any]:
    return {"Alive": True, "Resources": resources}


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The machines of a cluster; the one that asks has a GPU that it must not think of."""
    from evomerge.workers import cluster

    there = [machine(CPU=8.0), machine(CPU=8.0)]
    monkeypatch.setattr(cluster, "join_cluster", lambda address: None)
    monkeypatch.setattr(cluster, "nodes", lambda: there)
    return there


def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> bool:
        raise AssertionError("this machine's devices were asked")

    monkeypatch.setattr(torch.cuda, "is_available", asked)
    monkeypatch.setattr(torch.cuda, "device_count", asked)


def test_the_devices_of_a_cluster_are_those_of_its_machines(
    machines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_driver(monkeypatch)
    compute = ComputeSpec()
    assert device_of(compute, ray_address=ADDRESS) == "cpu"
    assert count_workers(compute, ray_address=ADDRESS) == 1
    machines += [machine(CPU=4.0, GPU=2.0), machine(CPU=1.0, GPU=4.0)]
    machines.append({**machine(CPU=8.0, GPU=8.0), "Alive": False})
    assert device_of(compute, ray_address=ADDRESS) == "cuda"
    assert count_workers(compute, ray_address=ADDRESS) == 3, "each has a processor too"
    check_workers(compute, ray_address=ADDRESS)
    two = ComputeSpec(gpus_per_worker=2)
    assert count_workers(two, ray_address=ADDRESS) == 2
    assert device_of(ComputeSpec(device="cpu"), ray_address=ADDRESS) == "cpu"


@pytest.mark.parametrize(
    ("device", "gpus", "text"),
    [
        ("cuda", 0.0, "compute.device: cuda: no machine of the cluster at .* has a GPU; write"),
        ("cuda:1", 2.0, "compute.device: cuda:1: Ray gives GPUs to workers; write auto or cuda"),
    ],
)
def test_a_device_that_a_cluster_does_not_have_is_refused(
    machines: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpus: float,
    text: str,
) -> None:
    no_driver(monkeypatch)
    machines.append(machine(CPU=1.0, GPU=gpus))
    with pytest.raises(JobError, match=f"^{text}"):
        check_workers(ComputeSpec(device=device), ray_address=ADDRESS)


def test_a_device_that_this_machine_does_not_have_is_refused_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(JobError, match=re.escape("compute.device: cuda: not usable here; write")):
        check_workers(ComputeSpec(device="cuda", workers=1))


def test_threads_are_as_many_as_here_shared_among_the_workers_of_a_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from evomerge.workers.cluster import Threads

    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = [Threads.like_here(), Threads.like_here(workers=3, machines=2)]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    free.append(Threads.like_here())
    for processors in (8, 64):
        monkeypatch.setattr(os, "cpu_count", lambda: processors)  # noqa: B023
        for threads in free:
            threads.take()
    assert taken == [4, 2, 4, 32, 16, 4]

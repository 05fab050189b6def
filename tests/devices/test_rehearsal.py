"""The device that is not there behaves as a GPU does, and misses nothing that it is asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from evomerge.devices import upload
from tests.devices.rehearsal import Rehearsal
from tests.devices.tensors import Counts, MixedDevicesError

CUDA = torch.device("cuda")


def on_device(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape)), device="cuda").view(shape)


def asked(device: Rehearsal, work: Callable[[], object]) -> Counts:
    with device.counting() as counts:
        work()
    return counts


def test_its_tensors_are_of_cuda_and_have_their_values(device: Rehearsal) -> None:
    made = torch.ones(2, 3, device=CUDA) + torch.full((3,), 2.0).to("cuda")
    assert made.device == torch.device("cuda:0") and made.is_cuda
    assert made.tolist() == [[3.0] * 3] * 2
    assert torch.nn.Linear(3, 2).to("cuda").weight.device.type == "cuda"
    weights = torch.ones(3, device="cuda", requires_grad=True)
    (weights * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None and weights.grad.device.type == "cuda"
    assert weights.grad.cpu().tolist() == [2.0] * 3


def test_mixed_devices_are_refused(device: Rehearsal) -> None:
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    for work in (
        lambda: there + here,
        lambda: torch.cat([here, there]),
        lambda: torch.where(there > 0, there, here),
        lambda: there.add_(here),
    ):
        with pytest.raises(MixedDevicesError, match="got a tensor of cpu"):
            work()  # type: ignore[no-untyped-call]
    with pytest.raises(TypeError, match="cuda:0"):
        there.numpy()
    assert (there + torch.tensor(1.0)).tolist() == [2.0] * 3  # a number, as torch allows it


WAITING: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda there: there[0].item(),
    "float": lambda there: float(there[0]),
    "truth": lambda there: bool((there > 0).all()),
    "list": lambda there: there.tolist(),
    "copy": lambda there: there.cpu(),
    "places": lambda there: there.nonzero(),
    "mask": lambda there: there[there > 0],
    "distinct": lambda there: torch.unique(there),
    "tally": lambda there: torch.bincount(there.int()),
    "pageable": lambda there: torch.ones(3).to("cuda"),
    "list to tensor": lambda there: torch.tensor([1.0, 2.0], device="cuda"),
    "assigned": lambda there: there.copy_(torch.ones(3)),
    "explicit": lambda there: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("kind", WAITING)
def test_what_waits_is_counted(kind: str, device: Rehearsal) -> None:
    there = on_device(3)
    with torch.inference_mode():
        assert asked(device, lambda: WAITING[kind](there)).waits == 1
    assert asked(device, lambda: WAITING[kind](there)).waits == 1


def test_what_does_not_wait_is_not(device: Rehearsal) -> None:
    there = on_device(4, 3)

    def work() -> None:
        numbers = upload(np.arange(4), CUDA)
        there[numbers].sum(dim=0).max(dim=0)
        there.masked_fill_(there > 5, 0.0)
        there[there > 3] = 1.0
        torch.nonzero_static(there > 0, size=2)
        there.flatten().kthvalue(3)

    counts = asked(device, work)
    assert (counts.waits, counts.uploads, counts.uploaded_bytes) == (0, 1, 32)


def test_kernels_and_memory_are_counted(device: Rehearsal) -> None:
    before = device.counts.live_bytes
    with device.counting() as counts:
        made = torch.zeros(1000, device="cuda")
        views = made.view(10, 100)[2:5].transpose(0, 1)[:, 0]
        made += 1.0
        sums = made.float() + views.detach()[0]
    assert (counts.launches, counts.allocations) == (3, 2)
    assert counts.peak_bytes - before == counts.live_bytes - before == 8000
    del made
    assert device.counts.live_bytes - before == 8000  # a view holds it
    del views
    assert device.counts.live_bytes - before == 4000
    del sums
    assert device.counts.live_bytes == before


def test_shapes_alone_take_no_memory_and_are_counted() -> None:
    with Rehearsal(computed=False) as device:
        huge = torch.empty(2**20, 2**20, dtype=torch.bfloat16, device="cuda")
        with device.counting() as counts:
            doubled = huge.float() * 2.0
            assert float(doubled[0, 0]) == 1.0
    assert counts.peak_bytes == (2 + 4 + 4) * 2**40

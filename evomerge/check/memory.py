"""About how much memory and disk a search takes, from the shapes of its models."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from evomerge.recipe import DType
from evomerge.sources import Source
from evomerge.space import DataFlowSpace
from evomerge.workers import (
    PreparedJob,
    choose_device,
    count_workers,
    open_process,
    share_there,
)

BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a search.

    model_bytes: one model in the job's dtype. live_bytes: models that a worker holds at once; the
    texts of a batch come on top. merge_bytes: the largest tensor of all models at once, in float32.
    files_bytes: the weights of all models on disk, which the system caches while there is room.
    cache_bytes: most bytes of results that depend on the sources alone; on disk, beside the run.
    prefix_bytes: most bytes of hidden states that routes share. device: of the workers. workers: on
    one machine. device_bytes, free_bytes: the memory of that device and the part that is free now.
    node: of a cluster, where that device is; empty for this machine.
    """

    model_bytes: int
    live_bytes: int
    merge_bytes: int
    files_bytes: int
    cache_bytes: int
    prefix_bytes: int
    device: str
    workers: int
    device_bytes: int
    free_bytes: int
    node: str = ""

    @property
    def needed_bytes(self) -> int:
        """What all workers of one machine need at least, on one device if they share it."""
        sharing = 1 if self.device.startswith("cuda") else self.workers
        return sharing * (self.live_bytes + self.prefix_bytes) + self.merge_bytes


def memory_of(preparation: PreparedJob, *, ray_address: str | None = None) -> Memory:
    """The memory of a job's search on this machine, or on one of a cluster. Raises WorkerError."""
    compute = preparation.job.compute
    workers, node = count_workers(compute, ray_address=ray_address), ""
    if ray_address is None:
        device = choose_device(compute.device)
        device_bytes, free_bytes = _memory_of(device)
    else:
        share = share_there(compute.device, compute.gpus_per_worker, ray_address=ray_address)
        device = share.device
        with open_process(_Machine, share, ray_address=ray_address) as process:
            device_bytes, free_bytes = process.ask("memory_of", device)
            node, workers = process.node, min(workers, process.room)
    sources = list(preparation.sources.values())
    model_bytes = _bytes_of(preparation.lead, preparation.out_dtype)
    # A route takes its layers from all sources, in place.
    routed = isinstance(preparation.space, DataFlowSpace)
    live_bytes = sum(_bytes_of(s, preparation.out_dtype) for s in sources) if routed else 0
    largest = max(map(math.prod, preparation.structure.shapes.values()), default=0)
    return Memory(
        model_bytes=model_bytes,
        live_bytes=max(model_bytes, live_bytes),
        merge_bytes=largest * 4 * (len(sources) + 1),
        files_bytes=weight_files(sources),
        cache_bytes=int(compute.cache_gb * 10**9),
        prefix_bytes=int(compute.prefix_gb * 10**9) if routed else 0,
        device=device,
        workers=workers,
        device_bytes=device_bytes,
        free_bytes=free_bytes,
        node=node,
    )


class _Machine:
    """A machine of a cluster, asked there."""

    def memory_of(self, device: str) -> tuple[int, int]:
        return _memory_of(device)


def parameters_of(source: Source) -> int:
    """Parameters of a model, without second names of a weight and parts of other models."""
    structure = source.structure
    left_out = structure.repeated | structure.ignored
    return sum(math.prod(s) for name, s in structure.shapes.items() if name not in left_out)


def _bytes_of(source: Source, dtype: DType) -> int:
    return parameters_of(source) * BYTES[dtype]


def weight_files(sources: Iterable[Source]) -> int:
    """Bytes of all files of weights, each once."""
    paths = {
        path.resolve()
        for source in sources
        for name, path in source.files.items()
        if name.endswith(".safetensors")
    }
    return sum(path.stat().st_size for path in paths)


def _memory_of(device: str) -> tuple[int, int]:
    """Bytes of a device's memory, and bytes that are free; of the machine for `cpu`."""
    if device.startswith("cuda"):
        free, whole = torch.cuda.mem_get_info(device)
        return whole, free
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_PHYS_PAGES"), _available(page)


def _available(page: int) -> int:
    """Free bytes, with those that the system would give back; fewer where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    names = os.sysconf_names
    return page * os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in names else 0

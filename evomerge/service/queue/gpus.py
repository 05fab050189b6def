"""How many GPUs a job says that it takes, for the limit of a person.

The queue sees no hardware: it counts what jobs declare.

    search, grid                      compute.workers × compute.gpus_per_worker
    check, evaluation, calibration    one, or compute.gpus_per_worker
    export                            one where it is verified

With the device `cpu` it is none. `gpus_per_worker: auto` is one GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.service.store.job import Kind
from evomerge.service.store.refusals import Refusal

Declared = float | None
"""GPUs of a job; None where it takes all of its machine."""


def gpus_of(kind: Kind, request: Mapping[str, Any]) -> Declared:
    """The GPUs that a complete request declares."""
    if kind == "export":
        return 1.0 if request.get("verify") else 0.0
    if kind == "calibration":
        return 0.0 if request.get("device") == "cpu" else 1.0
    inside = request.get("job", {}) if kind in ("check", "evaluation") else request
    compute = inside.get("compute", {})
    if compute.get("device") == "cpu":
        return 0.0
    each = compute.get("gpus_per_worker", "auto")
    each = 1.0 if each == "auto" else float(each)
    if kind not in ("search", "grid"):
        return each
    workers = compute.get("workers", "auto")
    return None if workers == "auto" else each * int(workers)


def check_gpus(kind: Kind, request: Mapping[str, Any], most: float | None) -> None:
    """Refuse a job that could never run under the limit of a person. Raises Refusal."""
    if most is None:
        return
    gpus = gpus_of(kind, request)
    field = "job.compute.workers" if kind in ("check", "evaluation") else "compute.workers"
    if gpus is None:
        raise Refusal(
            "it takes every GPU of its machine",
            field=field,
            value="auto",
            mend=f"give a number for {most:g} GPUs or fewer, or the device cpu",
        )
    if gpus > most:
        raise Refusal(
            f"the job takes {gpus:g} GPUs, and a person may have {most:g} on this service",
            field=field,
            mend="give fewer workers, or less of a GPU to each",
        )

"""Statistics of models that a process on a Ray cluster computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

from evomerge.calibrate import (
    Calibration,
    NodeCalibrator,
    OpenCalibrator,
    RemoteCalibrator,
    Text,
)
from evomerge.evaluate import Say
from evomerge.workers import open_process, share_there


def on_cluster(
    calibration: Calibration, ray_address: str, *, say: Say
) -> Callable[[Text], AbstractContextManager[OpenCalibrator]]:
    """Where a calibration is computed: on a node of the cluster at an address.

    One process does all models, one after another. say: called with lines about a long wait. Raises
    InputError, WorkerError.
    """
    return partial(_open, calibration, ray_address, say)


@contextlib.contextmanager
def _open(
    calibration: Calibration, ray_address: str, say: Say, text: Text
) -> Iterator[OpenCalibrator]:
    share = share_there(calibration.device, ray_address=ray_address, field="--device")
    make = partial(NodeCalibrator, text, calibration, share.device)
    with open_process(make, share, ray_address=ray_address, say=say) as process:
        yield lambda reference, source: RemoteCalibrator(process, reference)

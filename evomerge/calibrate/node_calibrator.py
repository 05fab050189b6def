"""Statistics that another process computes, and this one writes.

That process is on a node of a cluster, which may not have this machine's disk. It fills a file
without a name on its own disk, and sends it in blocks, so that a large model takes no more memory.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.calibrate.calibration import Calibration, ModelCalibrator, Plan, Progress
from evomerge.calibrate.tensor_file import file_bytes, new_file, tensors_in, unnamed_file
from evomerge.calibrate.text import Text
from evomerge.errors import WorkerError
from evomerge.merge import FileKind, Header
from evomerge.sources import open_source

BLOCK_BYTES = 2**25
"""Bytes that are sent at once; both processes and both of their object stores hold them."""

Tell = Callable[[tuple[int, int]], object]
"""Called with the sequences done and those in all."""


class NodeCalibrator:
    """The part that runs on the node: it has one model at a time, and the file that it computed.

    device: of the node.
    """

    def __init__(self, text: Text, calibration: Calibration, device: str) -> None:
        self._text = text
        self._calibration = calibration
        self._device = torch.device(device)
        self._model: ModelCalibrator | None = None
        self._plan: Plan | None = None
        self._told: Tell | None = None
        self._kept = contextlib.ExitStack()
        self._stream: BinaryIO | None = None

    def open(self, tell: Tell, reference: str) -> None:
        """Open a model in place of the one before. Raises InputError."""
        self._drop()
        self._model = None
        source = open_source(reference, where="MODEL")
        self._model = ModelCalibrator(source, self._text, self._calibration, self._device)

    def header(self, tell: Tell, kind: FileKind) -> Header:
        """See Calibrator."""
        return self._opened.header(kind)

    def plan(self, tell: Tell, kind: FileKind) -> int:
        """Load the model, and say how many bytes the file of a kind will have."""
        self._drop()
        plan = self._opened.plan(kind, self._progress)
        size_bytes = file_bytes(plan.shapes, plan.header.to_metadata())
        self._stream = self._kept.enter_context(unnamed_file(size_bytes))
        self._plan = plan
        return size_bytes

    def compute(self, tell: Tell) -> str:
        """Compute the planned file; its sha256."""
        assert self._plan is not None and self._stream is not None, "planned before"
        self._told = tell
        plan, stream = self._plan, self._stream
        with tensors_in(stream, plan.shapes, plan.header.to_metadata()) as into:
            plan.fill(into)
        stream.seek(0)
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]

    def read(self, start: int, count: int) -> NDArray[np.uint8]:
        """A block of the computed file."""
        assert self._stream is not None, "computed before"
        self._stream.seek(start)
        return np.frombuffer(self._stream.read(count), dtype=np.uint8)

    @property
    def _opened(self) -> ModelCalibrator:
        assert self._model is not None, "opened before"
        return self._model

    def _progress(self, done: int, count: int) -> None:
        if self._told is not None:
            self._told((done, count))

    def _drop(self) -> None:
        """Give back the disk of the last file."""
        self._kept.close()
        self._plan = self._stream = None


class Process(Protocol):
    """Another process that has a NodeCalibrator."""

    def call(self, method: str, *arguments: Any, tell: Callable[[Any], object] = ...) -> Any:
        """Call one of its methods that begin with `tell`, and wait for the answer."""

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call one of the others."""


class RemoteCalibrator:
    """Computes the statistics of a model in another process; see Calibrator."""

    def __init__(self, process: Process, reference: str) -> None:
        self._process = process
        self._reference = reference
        process.call("open", reference)

    def header(self, kind: FileKind) -> Header:
        """See Calibrator."""
        header: Header = self._process.call("header", kind)
        return header

    def write(self, kind: FileKind, path: Path, progress: Progress) -> None:
        """See Calibrator. Raises WorkerError if the file does not arrive as it was sent."""
        size_bytes: int = self._process.call("plan", kind)
        with new_file(path, size_bytes) as stream:
            computed = self._process.call(
                "compute", tell=lambda news: progress(path.name, news[0], news[1])
            )
            arrived = hashlib.sha256()
            for start in range(0, size_bytes, BLOCK_BYTES):
                block = self._process.ask("read", start, min(BLOCK_BYTES, size_bytes - start))
                arrived.update(block)
                stream.write(block)
            if arrived.hexdigest() != computed:
                raise WorkerError(
                    f"{self._reference}: its statistics did not arrive as they were sent; try again"
                )

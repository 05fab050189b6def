"""Hashes of a model's files, and whether every number in its weights is finite.

Both need every byte, so one reading does both. It can begin in the background, before anything else
of the model is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from evomerge.errors import EvomergeError, SourceError
from evomerge.sources.files import weight_files
from evomerge.sources.header import Entry, read_entries
from evomerge.sources.kept_readings import Reading, keep_reading, kept_reading, now_s

if TYPE_CHECKING:
    import torch

_BLOCK_BYTES = 2**20
_BITS = {"float64": 64, "float32": 32, "bfloat16": 16, "float16": 16}
"""The dtypes that have NaN and infinity."""

_EXPONENTS = {"float64": 11, "float32": 8, "bfloat16": 8, "float16": 5}
_BYTES_WITH_NAN = {"float8_e4m3fn": 0x7F, "float8_e8m0fnu": 0xFF}
"""dtype of one byte -> the bits of its NaN, without a sign where it has one; it has no infinity."""
_Key = tuple[Path, int, int]


class Digests:
    """Hashes of files; an unchanged file is not read again.

    reference: of the model, for messages. computed: tensors that transformers computes itself, so
    that their stored values may be anything.
    """

    def __init__(self, reference: str, *, computed: frozenset[str] = frozenset()) -> None:
        self._reference = reference
        self._computed = computed
        self._known: dict[_Key, str] = {}
        self._faults: dict[_Key, str] = {}

    def of(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Name -> sha256 in hexadecimal; files are read in parallel.

        Raises SourceError for a file that cannot be read, and for a safetensors tensor that holds a
        NaN or an infinity.
        """
        with ThreadPoolExecutor() as threads:
            return dict(zip(files, threads.map(self._digest, files.values()), strict=True))

    def _digest(self, path: Path) -> str:
        try:
            key = _key(path)
            if key not in self._known:
                if path.suffix == ".safetensors":
                    reading = _begun(key) or _read_weights(path, self._reference)
                    self._known[key] = reading.sha256
                    fault = self._fault(path, reading)
                    if fault:
                        self._faults[key] = fault
                else:
                    with path.open("rb") as stream:
                        self._known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror}); get it again") from error
        if key in self._faults:
            raise SourceError(self._faults[key])
        return self._known[key]

    def _fault(self, path: Path, reading: Reading) -> str | None:
        """A message about the first tensor that is not finite and should be; None if all are."""
        for name, what in reading.non_finite.items():
            if name not in self._computed:
                return (
                    f"{self._reference}: {name} in {path.name} holds {what}, so no merge with it "
                    "can be used; give a model with finite weights"
                )
        return None


# Readings that begin early.


_readings: dict[_Key, Future[Reading]] = {}


def begin_reading(folders: Sequence[Path]) -> None:
    """Begin to read models' weights, in threads that nobody waits for when the process ends.

    The next `Digests` of the same unchanged files takes the results. What cannot be read is left to
    it.
    """
    waiting: SimpleQueue[tuple[Path, Future[Reading]]] = SimpleQueue()
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(EvomergeError, OSError):
            for path in weight_files(folder, str(folder)):
                key = _key(path)
                if key not in _readings or _readings[key].done():
                    _readings[key] = Future()
                    waiting.put((path, _readings[key]))
    for _ in range(min(waiting.qsize(), os.cpu_count() or 1)):
        threading.Thread(target=_work, args=(waiting,), daemon=True).start()


def _work(waiting: SimpleQueue[tuple[Path, Future[Reading]]]) -> None:
    while True:
        try:
            path, future = waiting.get_nowait()
        except Empty:  # another thread may have taken the last one since
            return
        try:
            future.set_result(_read_weights(path, str(path)))
        except Exception as error:  # whoever needs the file reads it and says what is wrong
            future.set_exception(error)


def _begun(key: _Key) -> Reading | None:
    future = _readings.pop(key, None)
    if future is None:
        return None
    try:
        return future.result()
    except (EvomergeError, OSError):
        return None


def _key(path: Path) -> _Key:
    facts = path.stat()
    return path, facts.st_size, facts.st_mtime_ns


def _read_weights(path: Path, named: str) -> Reading:
    """A safetensors file read by this process, or by an earlier one."""
    facts, began_s = path.stat(), now_s()
    reading = kept_reading(path, facts)
    if reading is None:
        reading = _read(path, named)
        keep_reading(path, facts, began_s, reading)
    return reading


def _read(path: Path, named: str) -> Reading:
    """Read a safetensors file once; a second time to name tensors that are not finite."""
    entries = read_entries(path, named)
    digest = hashlib.sha256()
    # A multiple of every number's size, or as large as all of them: no piece cuts a number in two.
    size_bytes = min(_BLOCK_BYTES, sum(entry.size_bytes for entry in entries.values()))
    block = memoryview(bytearray(size_bytes))
    suspect = False
    with path.open("rb") as stream:
        digest.update(stream.read(next(iter(entries.values())).start))
        # Blocks reach over tensors of one dtype: few large steps, as each waits for Python.
        for dtype, run in itertools.groupby(entries.values(), key=lambda entry: entry.dtype):
            for piece in _pieces(
                stream, sum(entry.size_bytes for entry in run), block, path, named
            ):
                digest.update(piece)
                suspect = suspect or not_finite_bytes(piece, dtype) is not None
        found = _name_non_finite(stream, entries, block, path, named) if suspect else {}
    return Reading(sha256=digest.hexdigest(), non_finite=found)


def _name_non_finite(
    stream: BufferedReader, entries: Mapping[str, Entry], block: memoryview, path: Path, named: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, entry in entries.items():
        stream.seek(entry.start)
        for piece in _pieces(stream, entry.size_bytes, block, path, named):
            what = not_finite_bytes(piece, entry.dtype)
            if what is not None:
                found.setdefault(name, what)
    return found


def _pieces(
    stream: BufferedReader, left: int, block: memoryview, path: Path, named: str
) -> Iterator[memoryview]:
    """The next bytes of a file, in pieces of a block."""
    while left:
        piece = block[: min(left, len(block))]
        if stream.readinto(piece) != len(piece):
            raise SourceError(f"{named}: {path.name} changed while it was read; try again")
        yield piece
        left -= len(piece)


def not_finite_bytes(piece: memoryview, dtype: str) -> str | None:
    """ "NaN" or "infinity" if numbers of a dtype contain one, else None.

    By their bits: without its sign, an infinity is larger than every finite number, a NaN larger
    still. As signed integers the largest positive number leads, as unsigned ones the negative.
    """
    nan = _BYTES_WITH_NAN.get(dtype)
    if nan is not None:
        return "NaN" if ((np.frombuffer(piece, dtype=np.uint8) & nan) == nan).any() else None
    bits = _BITS.get(dtype)
    if bits is None or not len(piece):
        return None
    infinity = (2 ** _EXPONENTS[dtype] - 1) << (bits - 1 - _EXPONENTS[dtype])
    values = np.frombuffer(piece, dtype=f"u{bits // 8}")
    positive = int(values.view(f"i{bits // 8}").max())
    negative = int(values.max()) - 2 ** (bits - 1)
    largest = max(positive, negative)
    if largest < infinity:
        return None
    return "NaN" if largest > infinity else "infinity"


def not_finite(values: torch.Tensor) -> str | None:
    """ "NaN" or "infinity" if the values contain one, else None."""

    if not values.numel() or not values.is_floating_point():
        return None
    if values.dtype.itemsize == 1:  # torch has no bounds of these
        values = values.float()
    return not_finite_within(*bounds_of(values).tolist())


def bounds_of(values: torch.Tensor) -> torch.Tensor:
    """The least and the greatest of the values, of which there is one at least; (2,)."""
    import torch

    # One pass at the speed of memory: if there is a NaN, it is both the least and the greatest.
    return torch.stack(torch.aminmax(values.detach()))


def not_finite_within(least: float, greatest: float) -> str | None:
    """ "NaN" or "infinity" if values with these bounds contain one, else None."""
    if math.isnan(least) or math.isnan(greatest):
        return "NaN"
    return "infinity" if math.isinf(least) or math.isinf(greatest) else None

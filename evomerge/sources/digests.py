"""Hashes of a model's files, and whether every number in its weights is finite.

Both need every byte, so one reading does both.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from evomerge.errors import SourceError
from evomerge.sources.header import read_entries

_BLOCK_BYTES = 2**24
_WITH_NAN = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e8m0fnu")
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
            facts = path.stat()
            key = path, facts.st_size, facts.st_mtime_ns
            if key not in self._known:
                if path.suffix == ".safetensors":
                    self._known[key], fault = self._read_weights(path)
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

    def _read_weights(self, path: Path) -> tuple[str, str | None]:
        """The file's hash, and a message about the first tensor that is not finite, or None."""
        entries = read_entries(path, self._reference)
        digest = hashlib.sha256()
        fault: str | None = None
        block = bytearray(_BLOCK_BYTES)  # whole numbers of every dtype
        with path.open("rb") as stream:
            digest.update(stream.read(next(iter(entries.values())).start))
            for name, entry in entries.items():
                dtype = None if name in self._computed else _checked_dtype(entry.dtype)
                left = entry.size_bytes
                while left:
                    piece = memoryview(block)[: min(left, _BLOCK_BYTES)]
                    if stream.readinto(piece) != len(piece):
                        raise SourceError(
                            f"{self._reference}: {path.name} changed while it was read; try again"
                        )
                    digest.update(piece)
                    left -= len(piece)
                    if dtype is not None and fault is None:
                        non_finite = not_finite(torch.frombuffer(piece, dtype=dtype))
                        if non_finite:
                            fault = (
                                f"{self._reference}: {name} in {path.name} holds {non_finite}, so "
                                "no merge with it can be used; give a model with finite weights"
                            )
        return digest.hexdigest(), fault


def _checked_dtype(name: str) -> torch.dtype | None:
    """The dtype of weights that could hold a NaN; None for others."""
    return getattr(torch, name) if name in _WITH_NAN else None


def not_finite(values: torch.Tensor) -> str | None:
    """ "NaN" or "infinity" if the values contain one, else None."""
    if not values.numel() or not values.is_floating_point():
        return None
    if values.dtype.itemsize == 1:  # torch has no bounds of these
        values = values.float()
    # One pass at the speed of memory: if there is a NaN, it is both the least and the greatest.
    least, greatest = (float(bound) for bound in torch.aminmax(values.detach()))
    if math.isnan(least) or math.isnan(greatest):
        return "NaN"
    return "infinity" if math.isinf(least) or math.isinf(greatest) else None

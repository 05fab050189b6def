"""What earlier processes read of large files: hashes, and which tensors are not finite.

To hash the models takes longer than to merge them. So a file is not read again as long as the
system says that it is the one that was read: the same place, device, number, size, and times of the
last change of content and of anything else. A change that keeps the file's time of content still
sets the other one. Without a file, or where files cannot be written, models are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evomerge.sources.answered import kept_folder, replace_file

_LEAST_BYTES = 2**24
"""Smaller files are read faster than it takes to care."""

_SETTLED_S = 60.0
"""How old the last change must be when the reading begins. A later change may get the same time:
clocks are coarse, network file systems keep times for a while, and of memory that is mapped from a
file only the first change is told until it is written back."""

_FORM = 1


@dataclass(frozen=True)
class Reading:
    """A file that was read. non_finite: the tensors that hold "NaN" or "infinity", in order."""

    sha256: str
    non_finite: Mapping[str, str]


def kept_reading(path: Path, facts: os.stat_result) -> Reading | None:
    """The reading that was kept of this file; None where there is none, or the file changed."""
    file = _file(path, facts)
    if file is None:
        return None
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        reading = Reading(str(kept["sha256"]), dict(kept["non_finite"]))
        return reading if kept == _document(path, facts, reading) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def keep_reading(path: Path, facts: os.stat_result, began_s: float, reading: Reading) -> None:
    """Keep a reading for later processes. A full disk is no error.

    facts: of the file before it was read. began_s: when that was, by `time.time`. Nothing is kept
    of a file that changed since, or shortly before.
    """
    file = _file(path, facts)
    if file is None or began_s - max(facts.st_mtime, facts.st_ctime) < _SETTLED_S:
        return
    document = _document(path, facts, reading)
    with contextlib.suppress(OSError):
        if _document(path, path.stat(), reading) == document:
            replace_file(file, json.dumps(document))


def now_s() -> float:
    """The time to give as `began_s`."""
    return time.time()


def _file(path: Path, facts: os.stat_result) -> Path | None:
    folder = kept_folder("readings")
    if folder is None or facts.st_size < _LEAST_BYTES:
        return None
    return folder / f"{hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()}.json"


def _document(path: Path, facts: os.stat_result, reading: Reading) -> dict[str, object]:
    """A reading and what it is of, with a hash, so that a damaged document is not believed."""
    document: dict[str, object] = {
        "form": _FORM,
        "machine": platform.node(),
        "path": os.path.realpath(path),
        "device": facts.st_dev,
        "number": facts.st_ino,
        "size_bytes": facts.st_size,
        "content_changed_ns": facts.st_mtime_ns,
        "changed_ns": facts.st_ctime_ns,
        "sha256": reading.sha256,
        "non_finite": dict(reading.non_finite),
    }
    return {**document, "check": hashlib.sha256(json.dumps(document).encode()).hexdigest()}

"""Compiled code that is kept on disk must be of the sources that are there now.

numba keeps what it compiled beside each file and looks at that file alone, but kernels are made of
functions from several files. So what was kept is dropped when any of them has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

_STAMP = "kernels.sha256"


def drop_stale(folder: Path) -> bool:
    """Delete what numba kept in `folder`/__pycache__ of other sources; returns whether it did."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.read_bytes())
    kept = folder / "__pycache__"
    stamp = kept / _STAMP
    with contextlib.suppress(OSError):  # where nothing can be written, nothing was kept either
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return False
        for file in kept.glob("*.nb[ic]"):
            file.unlink(missing_ok=True)
        kept.mkdir(exist_ok=True)
        stamp.write_text(digest.hexdigest())
        return True
    return False

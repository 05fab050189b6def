"""Numbers of bytes and seconds as a person reads them."""

from __future__ import annotations


def size_text(count: float) -> str:
    """Bytes, with three digits."""
    for size, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count:g} bytes"


def seconds_text(seconds: float) -> str:
    """Seconds, with three digits."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"

"""Failures of the machine, which may pass: memory, disk, a device. No candidate is to blame."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_NUMBERS = frozenset(
    {
        errno.ENOMEM,
        errno.EIO,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EMFILE,
        errno.ENFILE,
        errno.EAGAIN,
        errno.ESTALE,
        errno.ENODEV,
    }
)

_NAMES = frozenset({"OutOfMemoryError", "AcceleratorError"})
"""Errors of torch and Ray by name, so that nothing heavy is imported to tell one."""

_TEXTS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "std::bad_alloc",
    "alloc_failed",  # cuBLAS, cuDNN
    "cuda error",
    "hip error",
    "can't start new thread",
    "no space left on device",
    "too many open files",
    "input/output error",
)
"""What libraries say in errors that have no class of their own."""


def is_shortage(error: BaseException) -> bool:
    """Whether this error, or what it was raised from, says that the machine ran short."""
    return any(_says_so(each) for each in _chain(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NUMBERS
    if type(error).__name__ in _NAMES:
        return True
    # A task's own code may raise these words as a ValueError about a text that it was given.
    if not isinstance(error, RuntimeError | OSError) and "Safetensor" not in type(error).__name__:
        return False
    said = str(error).lower()
    return any(text in said for text in _TEXTS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__

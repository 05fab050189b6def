"""What can go wrong, as a user meets it: errors, and failures of the machine that may pass.

    EvomergeError                  every error this package raises on purpose
    ├── InputError                 bad input: one line that says what, where and the mend (exit 2)
    │   ├── JobError               the job file
    │   ├── RecipeError            a recipe or a merge method's parameters
    │   ├── SourceError            a checkpoint that is missing, damaged or does not fit
    │   ├── TaskError              an evaluation task or one of its metrics
    │   └── RunError               a run directory: locked, changed, missing, not finished
    ├── MergeError                 a merge that gives numbers no weight can have (exit 2)
    ├── StorageError               the record cannot be written: disk full, no permission (exit 2)
    ├── WorkerError                a worker cannot be started or kept alive (exit 2)
    └── SelfCheckError             an engine scores otherwise than plain transformers (exit 2)

No password or token that a user wrote is part of it.
"""

from __future__ import annotations

import errno
import re
import signal
import unicodedata
from collections.abc import Iterator

_SECRETS = (
    (re.compile(r"(://[^\s/:@]*:)\S*@"), r"\1***@"),
    (re.compile(r"(?i)((?:^|[?&\s'\"])(?:password|sslpassword|token)=)[^\s&'\"]+"), r"\1***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_***"),
)
"""Passwords in URLs, in what follows a URL's `?` or a connection string, and tokens of the hub."""


class EvomergeError(Exception):
    """Every error this package raises on purpose; its text is one line for a user."""

    exit_code = 2

    def __str__(self) -> str:
        return one_line(hide_secrets(super().__str__()))


class InputError(EvomergeError):
    """Something a user can mend: names what is wrong, where, and what to do."""


class JobError(InputError):
    """A job file that cannot be run as it stands."""


class RecipeError(InputError):
    """A recipe, or a parameter of a merge method, that cannot be executed."""


class SourceError(InputError):
    """A checkpoint that is missing, damaged, or does not fit the others."""


class TaskError(InputError):
    """An evaluation task, or a metric of it, that cannot be used."""


class RunError(InputError):
    """A run directory that is locked, changed since its start, missing or not finished."""


class MergeError(EvomergeError):
    """A merge whose result holds a NaN or an infinity; in a search one candidate fails of it."""


class StorageError(EvomergeError):
    """The record of a search cannot be written; what was recorded before is kept."""


class WorkerError(EvomergeError):
    """A worker cannot be started, or died more often than is tolerated."""


class SelfCheckError(EvomergeError):
    """An engine's scores are not those of plain transformers, so none of them can be trusted."""


class Interrupt(KeyboardInterrupt):
    """A signal that ends a command, as the command line raises it.

    expected: whether the command line's own handler is there, so that every signal raises this.
    """

    expected = False


def is_interrupt(error: BaseException) -> bool:
    """Whether a user or a scheduler interrupts; not a KeyboardInterrupt that a task's code raises.

    The two cannot be told apart where a program has a handler that is not the command line's; then
    it is an interrupt.
    """
    if isinstance(error, Interrupt):
        return True
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return isinstance(error, KeyboardInterrupt) and not ignored and not Interrupt.expected


def one_line(message: object) -> str:
    """The text of an error on one line, as every message to a user is; nothing in it acts."""
    return visible(" ".join(str(message).split()))


def visible(text: str) -> str:
    """The text as it may be sent to a terminal, which obeys some signs instead of showing them."""
    return "".join(sign if _is_shown(sign) else f"\\x{ord(sign):02x}" for sign in text)


def _is_shown(sign: str) -> bool:
    """Whether a terminal shows it, rather than obeys it."""
    return unicodedata.category(sign) not in ("Cc", "Cf", "Cs")


def hide_secrets(text: str) -> str:
    """The text with three stars in the place of every password and token in it."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


# Failures of the machine, which may pass: memory, disk, a device. No candidate is to blame.


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

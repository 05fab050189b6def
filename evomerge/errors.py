"""The errors that a user can get, and failures of the machine that may pass.

    EvomergeError                  every error this package raises on purpose
    ├── InputError                 bad input: one line with what, where and the mend (exit 2)
    │   ├── JobError               the job file
    │   ├── RecipeError            a recipe or a merge method's parameters
    │   ├── SourceError            a checkpoint that is missing, damaged or does not fit
    │   ├── TaskError              an evaluation task or one of its metrics
    │   └── RunError               a run directory: locked, changed, missing, not finished
    ├── MergeError                 a merge with a NaN or an infinity in its result (exit 2)
    ├── StorageError               the record cannot be written: disk full, no permission (exit 2)
    ├── WorkerError                a worker cannot be started or kept alive (exit 2)
    └── SelfCheckError             an engine's scores differ from plain transformers (exit 2)

Their texts hide passwords and tokens.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import unicodedata
from collections.abc import Iterator

_SECRETS = (
    (re.compile(r"(?i)((?:^|[?&\s'\"])(?:password|sslpassword|token)=)[^\s&'\"]+"), r"\1***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_***"),
    (re.compile(r"\bevm_[A-Za-z0-9_-]{8,}"), "evm_***"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]{8,}"), "whsec_***"),
)
"""Passwords in a URL's query or in a connection string, tokens of the hub and of a service, secrets
of webhooks."""
_BEFORE_PASSWORD = re.compile(r"://[^\s/:@]*:")


class EvomergeError(Exception):
    """Every error this package raises on purpose; its text is one line for a user."""

    exit_code = 2

    def __str__(self) -> str:
        return one_line(hide_secrets(super().__str__()))


class InputError(EvomergeError):
    """Bad input that a user can mend; the text says what is wrong, where, and what to do."""


class JobError(InputError):
    """A job file that cannot be run."""


class RecipeError(InputError):
    """A recipe, or a parameter of a merge method, that cannot be executed."""


class SourceError(InputError):
    """A checkpoint that is missing, damaged, or does not fit the others."""


class TaskError(InputError):
    """An evaluation task, or a metric of it, that cannot be used."""


class RunError(InputError):
    """A run directory that is locked, changed since its start, missing or not finished."""


class MergeError(EvomergeError):
    """A merge with a NaN or an infinity in its result; in a search only that candidate fails."""


class StorageError(EvomergeError):
    """The record of a search cannot be written; what was recorded before is kept."""


class WorkerError(EvomergeError):
    """A worker cannot be started, or died too often."""


class SelfCheckError(EvomergeError):
    """An engine's scores differ from those of plain transformers, so none can be trusted."""


class Interrupt(KeyboardInterrupt):
    """A signal that ends a command, as the command line raises it.

    expected: whether the command line's own handler is installed, so that every signal raises this.
    """

    expected = False


def is_interrupt(error: BaseException) -> bool:
    """Whether a user or a scheduler interrupts; not a KeyboardInterrupt that a task's code raises.

    If a program has its own handler, the two cannot be distinguished; both are interrupts then.
    """
    if isinstance(error, Interrupt):
        return True
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return isinstance(error, KeyboardInterrupt) and not ignored and not Interrupt.expected


def one_line(message: object) -> str:
    """The text of an error on one line, with control characters escaped, as in every message."""
    return visible(" ".join(str(message).split()))


def visible(text: str) -> str:
    """The text with escapes for the characters that a terminal would obey instead of showing."""
    return "".join(sign if _is_shown(sign) else f"\\x{ord(sign):02x}" for sign in text)


def _is_shown(sign: str) -> bool:
    """Whether a terminal shows the character instead of obeying it."""
    return unicodedata.category(sign) not in ("Cc", "Cf", "Cs")


def hide_secrets(text: str) -> str:
    """The text with three stars for every password and token in it.

    Values of the environment are hidden too where a variable's name says that it is a secret.
    """
    if "://" in text and "@" in text:
        text = re.sub(r"\S+", _hide_password, text)
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    for secret in environment_secrets():
        text = text.replace(secret, "***")
    return text


def _hide_password(word: re.Match[str]) -> str:
    """The word without the password of a URL, which ends at the last @.

    One pattern would look for that @ again from every place where a password may begin; strangers
    send long lines of those.
    """
    text = word[0]
    begin, end = _BEFORE_PASSWORD.search(text), text.rfind("@")
    return text if begin is None or end < begin.end() else f"{text[: begin.end()]}***{text[end:]}"


_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_LEAST_SECRET = 10
"""Characters of a value that is hidden by itself; a shorter one may be any word."""


@functools.cache
def environment_secrets() -> tuple[str, ...]:
    """Values of the variables that name a secret, as WANDB_API_KEY and HF_TOKEN; the longest first.

    A value that is the path of a file is none.
    """
    found = {
        value.strip()
        for name, value in os.environ.items()
        if name.upper().endswith(_SECRET_NAMES) and not os.path.exists(value)
    }
    return tuple(
        sorted((each for each in found if len(each) >= _LEAST_SECRET), key=len, reverse=True)
    )


# Failures of the machine, which may pass: memory, disk, a device. No candidate causes them.


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
"""Errors of torch and Ray by name, so that no heavy library is imported to recognise them."""

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
"""Parts of the messages of libraries, for errors without their own class."""


def is_shortage(error: BaseException) -> bool:
    """Whether this error, or an error that caused it, shows a shortage of the machine."""
    return any(_says_so(each) for each in _chain(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NUMBERS
    if type(error).__name__ in _NAMES:
        return True
    # A task's own code may raise a ValueError with these words, about some text.
    if not isinstance(error, RuntimeError | OSError) and "Safetensor" not in type(error).__name__:
        return False
    message = str(error).lower()
    return any(text in message for text in _TEXTS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__

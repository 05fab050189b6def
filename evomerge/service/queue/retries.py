"""What follows a failed or a lost attempt: another one after a wait, or the end."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.service.store.job import Cause

NEVER: frozenset[Cause] = frozenset({"input", "max_duration", "self_check"})
"""Causes that another attempt would meet again."""

FREE: frozenset[Cause] = frozenset({"lost", "interrupted"})
"""Causes that are not the job's fault: they take none of its retries."""

MOST_SETBACKS = 12
"""Attempts in a row with nothing new done, after which even a lost job fails: it may be what
brings its machine down."""

LONGEST_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Another:
    """Another attempt, after a wait. free: whether it takes none of the job's retries."""

    wait_s: float
    free: bool


def after(cause: Cause, *, setbacks: int, retries_left: int, backoff_s: float) -> Another | None:
    """Whether the job is tried again; setbacks: with this one. None: it has failed."""
    if cause in NEVER or setbacks > MOST_SETBACKS:
        return None
    if cause in FREE:
        # A restart of the machine is no reason to wait; the same again and again is.
        return Another(wait_s=_wait(setbacks - 2, backoff_s), free=True)
    if retries_left < 1:
        return None
    return Another(wait_s=_wait(setbacks, backoff_s), free=False)


def _wait(times: int, backoff_s: float) -> float:
    return 0.0 if times < 1 else float(min(LONGEST_S, backoff_s * 2 ** (times - 1)))

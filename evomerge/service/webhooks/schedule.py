"""When a delivery is tried again: after growing waits with a random part, for about a day."""

from __future__ import annotations

import random

TRIES = 13
_FIRST_S = 10.0
_FACTOR = 3.0
_LONGEST_S = 4 * 3600.0
_RANDOM_PART = 0.2
"""Of a wait, to each side, so that what failed together does not come back together."""

LONGEST_ASKED_S = 24 * 3600.0
"""The longest wait that a receiver can ask for."""

LATEST_S = 48 * 3600.0
"""After its event; a delivery that would be tried later has failed."""


def wait_s(
    attempt: int, *, asked_s: float | None = None, draw: random.Random | None = None
) -> float | None:
    """Seconds until the next try after `attempt` tries; None: there is none.

    asked_s: by the receiver, with Retry-After; it makes a wait longer, never shorter.
    """
    if attempt >= TRIES:
        return None
    # More factors than a wait can use would overflow.
    usual = min(_LONGEST_S, _FIRST_S * _FACTOR ** min(attempt - 1, TRIES))
    usual *= 1.0 + _RANDOM_PART * (draw or random).uniform(-1.0, 1.0)
    return usual if asked_s is None else max(usual, min(asked_s, LONGEST_ASKED_S))

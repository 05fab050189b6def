"""What fails again and again is said when it begins, each minute, and at its end."""

from __future__ import annotations

import logging

import pytest

from evomerge.errors import StorageError
from evomerge.service.outage import Outage


def test_a_line_a_minute_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    seconds = 0.0
    log = logging.getLogger("outage")
    outage = Outage(log, "the queue cannot be looked at", clock=lambda: seconds)
    outage.worked()
    for tick in range(201):
        seconds = tick * 0.5
        outage.failed(StorageError("the database gives no access"))
    outage.worked()
    outage.worked()
    outage.failed(ValueError("never seen"))
    said = [(record.getMessage(), record.exc_info is not None) for record in caplog.records]
    reason = "the database gives no access"
    assert said == [
        (f"the queue cannot be looked at: {reason}", False),
        (f"the queue cannot be looked at (for 60 s now): {reason}", False),
        ("the queue cannot be looked at: over after 100 s", False),
        ("the queue cannot be looked at", True),
    ]

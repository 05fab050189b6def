"""The supervisor of a server: starts runners, finds them again, takes back jobs that were lost."""

from __future__ import annotations

from evomerge.service.database.engine import Database
from evomerge.service.settings import ServiceSettings


class Supervisor:
    """A thread of a server; `start` it once, `stop` it at the end: runners go on without it."""

    def __init__(self, database: Database, settings: ServiceSettings) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Find the runners of this host again, then watch the queue."""
        raise NotImplementedError

    def stop(self) -> None:
        """Start nothing more and end the thread; running jobs go on."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether it looked at the queue lately; for readiness."""
        raise NotImplementedError

"""What the tests of Ray share: the first of the two sessions that a process of them has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from evomerge.workers.pool_choice import set_up_ray

if TYPE_CHECKING:
    from evomerge.workers.ray_session import RaySession


@pytest.fixture(scope="session")
def first_session() -> Iterator[RaySession]:
    """A session with room for two workers; the pool's tests end it and begin another."""
    set_up_ray()
    from evomerge.workers.ray_session import RaySession

    session = RaySession(workers=2, address=None)
    yield session
    session.close()

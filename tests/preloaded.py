"""What the process has loaded that the others are forked from; see forkserver.py."""

from __future__ import annotations

from evomerge.startup import begin_loading, end_loading

begin_loading()

import alembic.command  # noqa: E402, F401  # with the first record otherwise, in every process
import torch  # noqa: E402

import tests.grid.kills  # noqa: E402
import tests.search.kills  # noqa: E402, F401
from tests.migrations import read_once  # noqa: E402

read_once()
# Threads do not survive a fork: nothing here may start any.
torch.set_num_threads(1)
end_loading()  # what every fork begins with is no garbage of any

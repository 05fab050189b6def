"""What the process has loaded that the others are forked from; see processes.py."""

from __future__ import annotations

import gc

import alembic.command  # noqa: F401  # with the first record otherwise, in every process
import torch

import tests.grid.kills
import tests.search.kills  # noqa: F401
from tests.migrations import read_once

read_once()
# Threads do not survive a fork: nothing here may start any.
torch.set_num_threads(1)
gc.collect()
gc.freeze()  # what every fork begins with is no garbage of any

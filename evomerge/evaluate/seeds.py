"""Runs task code under lm-eval's own seeds, and restores the caller's random generators."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

FEWSHOT_SEED: int = DEFAULT_OTHER_SEED
"""Seed of the few-shot examples: the default of `lm_eval`."""


@contextmanager
def stock_seeds() -> Iterator[None]:
    """Seed Python's, numpy's and torch's generators as `simple_evaluate` does, then put them back.

    Task files are code. A task that shuffles its documents must do so as under `lm_eval`, and give
    the same order every time.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state()
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.default_generator.manual_seed(DEFAULT_OTHER_SEED)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


@contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Hide lm-eval's advice about its own command line; its errors still show.

    All logs of the hub's clients are hidden, because their errors are raised too.
    """
    levels = {"lm_eval": logging.ERROR, "huggingface_hub": logging.CRITICAL}
    levels["datasets"] = logging.CRITICAL
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)

"""Task code runs under lm-eval's own seeds, and leaves the caller's generators as they were."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

FEWSHOT_SEED: int = DEFAULT_OTHER_SEED
"""Seed of the few-shot examples, as `lm_eval` sets it unless told otherwise."""


@contextmanager
def stock_seeds() -> Iterator[None]:
    """Seed Python's, numpy's and torch's generators as `simple_evaluate` does, then put them back.

    Task files are code: a task that shuffles its documents must do so as it does under `lm_eval`,
    and alike every time.
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
    """Hold back lm-eval's advice about its own command line; its errors still show.

    What the clients of the hub log about each try is held back whole: their errors are raised too.
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

"""Runs task code under lm-eval's own seeds, and restores the caller's random generators."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

FEWSHOT_SEED: int = DEFAULT_OTHER_SEED
"""Seed of the few-shot examples: the default of `lm_eval`."""

_quiet_lock = threading.Lock()
_quiet: list[dict[str, int]] = []
"""The levels of the loggers as they were before, once for each context that is open."""


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

    All logs of the hub's clients are hidden, because their errors are raised too. May be nested:
    only the outermost changes levels, because each change costs Python a look at every logger.
    """
    levels = {"lm_eval": logging.ERROR, "huggingface_hub": logging.CRITICAL}
    levels["datasets"] = logging.CRITICAL
    with _quiet_lock:
        if not _quiet:
            _quiet.append({name: logging.getLogger(name).level for name in levels})
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
        else:
            _quiet.append(_quiet[0])
    try:
        yield
    finally:
        with _quiet_lock:
            before = _quiet.pop()
            if not _quiet:
                for name, level in before.items():
                    logging.getLogger(name).setLevel(level)

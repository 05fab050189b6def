"""A worker: builds one candidate after another in memory and scores it.

It holds the sources, the live model and the tasks ready, so that a candidate costs its merge and
its forward passes. It knows nothing of searches, records or other workers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from evomerge.candidate import (
    Candidate,
    Cost,
    Failed,
    Observer,
    Outcome,
    Scored,
    TaskItems,
    count_items,
    ignore,
)
from evomerge.errors import InputError, MergeError, one_line
from evomerge.evaluate.engines.base import Engine, Unscorable
from evomerge.preparation import Preparation
from evomerge.recipe import Recipe
from evomerge.workers.live_models import LiveModels


def choose_device(wanted: str) -> str:
    """The device a job's `compute.device` means on this machine."""
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


class Worker:
    """Scores candidates on one device, in this process."""

    def __init__(
        self, preparation: Preparation, *, device: str, facts_folder: Path | None = None
    ) -> None:
        """facts_folder: where facts about the sources that are large are kept beside the run."""
        self._suite = preparation.suite
        self._models = LiveModels(preparation, device=device, facts_folder=facts_folder)

    def expect(self, recipes: Sequence[Recipe]) -> None:
        """Which recipes come next, on the same items; it changes what they cost, never a score.

        What goes wrong here is found again, candidate by candidate.
        """
        with contextlib.suppress(Exception):
            self._models.expect(recipes)

    def evaluate(self, candidate: Candidate, observe: Observer = ignore) -> Outcome:
        """Build and score one candidate. What goes wrong with it is a Failed, never an exception.

        Only an InputError passes: a source that became unreadable concerns every candidate.
        """
        start = time.perf_counter()
        try:
            engine = self._models.hold(candidate.recipe)
        except InputError:
            raise
        except MergeError as error:
            return Failed(reason=str(error), cost=Cost(merge_s=time.perf_counter() - start))
        except Exception as error:
            return Failed(reason=_reason(error), cost=Cost(merge_s=time.perf_counter() - start))
        merged = time.perf_counter()
        observe("merged", candidate.key)
        outcome = self._score(candidate, engine, merge_s=merged - start)
        if isinstance(outcome, Scored):
            observe("scored", candidate.key)
        return outcome

    def _score(self, candidate: Candidate, engine: Engine, *, merge_s: float) -> Outcome:
        """Score the live model; an InputError passes."""
        start = time.perf_counter()
        before = engine.forward_s, engine.hops, engine.shared_hops
        reason: str | None = None
        tasks: Mapping[str, TaskItems] = {}
        try:
            tasks = self._suite.score(engine, candidate.items)
        except Unscorable as error:
            reason = str(error)
        except InputError:
            raise
        except Exception as error:
            reason = _reason(error)
        cost = Cost(
            merge_s=merge_s,
            evaluate_s=time.perf_counter() - start,
            forward_s=engine.forward_s - before[0],
            items=count_items(candidate.items),
            hops=engine.hops - before[1],
            shared_hops=engine.shared_hops - before[2],
        )
        return (
            Scored(tasks=tasks, cost=cost) if reason is None else Failed(reason=reason, cost=cost)
        )


def _reason(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")

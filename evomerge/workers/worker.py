"""A worker: builds one candidate after another in memory and scores it.

It holds the sources, the live model and the tasks ready, so that a candidate costs its merge and
its forward passes. It knows nothing of searches, records or other workers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
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
from evomerge.errors import InputError, one_line
from evomerge.evaluate.engines.base import Engine, Unscorable
from evomerge.evaluate.engines.transformers import TransformersEngine
from evomerge.merge.engine import MergeEngine
from evomerge.merge.facts import Facts
from evomerge.preparation import Preparation
from evomerge.vocabulary import settings_of


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
        limit_bytes = int(preparation.job.compute.cache_gb * 10**9)
        self._merge = MergeEngine(
            preparation.sources,
            facts=Facts(limit_bytes=limit_bytes, folder=facts_folder),
            device=device,
        )
        evaluation = preparation.job.evaluation
        self._engine: Engine = TransformersEngine(
            preparation.lead.folder,
            tokenizer=preparation.tokenizer,
            settings=settings_of(preparation.lead),
            dtype=preparation.out_dtype,
            device=device,
            batch_size=evaluation.batch_size,
            trust_remote_code=preparation.job.models.trust_remote_code,
        )

    def evaluate(self, candidate: Candidate, observe: Observer = ignore) -> Outcome:
        """Build and score one candidate. What goes wrong with it is a Failed, never an exception.

        Only an InputError passes: a source that became unreadable concerns every candidate.
        """
        start = time.perf_counter()
        try:
            merged_tensors = self._merge.execute(candidate.recipe, into=self._engine.destination)
            self._engine.load(merged_tensors)
        except InputError:
            raise
        except Exception as error:
            return Failed(reason=_reason(error), cost=Cost(merge_s=time.perf_counter() - start))
        merged = time.perf_counter()
        observe("merged", candidate.key)
        outcome = self._score(candidate, merge_s=merged - start)
        if isinstance(outcome, Scored):
            observe("scored", candidate.key)
        return outcome

    def _score(self, candidate: Candidate, *, merge_s: float) -> Outcome:
        """Score the live model; an InputError passes."""
        start = time.perf_counter()
        forward_before = self._engine.forward_s
        reason: str | None = None
        tasks: Mapping[str, TaskItems] = {}
        try:
            tasks = self._suite.score(self._engine, candidate.items)
        except Unscorable as error:
            reason = str(error)
        except InputError:
            raise
        except Exception as error:
            reason = _reason(error)
        cost = Cost(
            merge_s=merge_s,
            evaluate_s=time.perf_counter() - start,
            forward_s=self._engine.forward_s - forward_before,
            items=count_items(candidate.items),
        )
        return (
            Scored(tasks=tasks, cost=cost) if reason is None else Failed(reason=reason, cost=cost)
        )


def _reason(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")

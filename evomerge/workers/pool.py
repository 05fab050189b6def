"""The pool: where candidates go to be scored, whatever is behind it."""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from evomerge.candidate import Candidate, Observer, Outcome, ignore
from evomerge.preparation import Preparation
from evomerge.route import hops_of
from evomerge.route.prefixes import order_by_prefix
from evomerge.workers.worker import Worker, choose_device


class Pool(ABC):
    """Scores candidates; the results come in any order and depend on the candidate alone."""

    @abstractmethod
    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Outcome]]:
        """Score each candidate once and yield it with its outcome as soon as it is there."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers and give back their memory."""

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates in the order in which they cost least: routes that begin alike together."""
    routed = [one for one in candidates if one.recipe.route is not None]
    order = order_by_prefix([hops_of(one.recipe) for one in routed])
    others = [one for one in candidates if one.recipe.route is None]
    return [*others, *(routed[place] for place in order)]


class LocalPool(Pool):
    """One worker in this process; the only pool that reports the steps inside a candidate."""

    def __init__(self, preparation: Preparation, *, facts_folder: Path | None = None) -> None:
        device = choose_device(preparation.job.compute.device)
        self._worker = Worker(preparation, device=device, facts_folder=facts_folder)

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Outcome]]:
        """Score the candidates one after another, routes that begin alike together."""
        ordered = in_order(candidates)
        self._worker.expect([candidate.recipe for candidate in ordered])
        for candidate in ordered:
            yield candidate, self._worker.evaluate(candidate, observe)

    def close(self) -> None:
        """Nothing to stop: the memory goes with the pool."""

"""The pool: it scores candidates, in this process or in others."""

from __future__ import annotations

import time
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from evomerge.errors import WorkerError
from evomerge.evaluate import Candidate, CandidateKey, Evaluation, Observer, Say, hush, ignore
from evomerge.route import hops_of, order_by_prefix
from evomerge.workers.devices import choose_device
from evomerge.workers.preparation.prepared_job import PreparedJob
from evomerge.workers.worker import PAUSES_S, Checked, Shortage, Worker, forget


class Pool(ABC):
    """Scores candidates; the results come in any order and depend on the candidate alone."""

    @abstractmethod
    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        """Score each candidate once and yield it with its outcome as soon as it is there.

        Raises WorkerError if the workers or the machine fail; no candidate is to blame for that.
        """

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
    """The candidates in the cheapest order: routes with the same beginning together."""
    routed = [candidate for candidate in candidates if candidate.recipe.route is not None]
    order = order_by_prefix([hops_of(candidate.recipe) for candidate in routed])
    others = [candidate for candidate in candidates if candidate.recipe.route is None]
    return [*others, *(routed[place] for place in order)]


def in_short(key: CandidateKey, reason: str, pause_s: float) -> str:
    """The line that tells why a candidate has to wait."""
    return f"{key} is tried again in {pause_s:g} s, because the machine ran short: {reason}"


def ran_short(key: CandidateKey, reason: str) -> WorkerError:
    """The error that ends a search if the machine stays short of memory or disk."""
    return WorkerError(
        f"the machine ran short {len(PAUSES_S) + 1} times while {key} was scored ({reason}); free "
        "memory or disk, or ask for less (compute.workers, evaluation.batch_size)"
    )


class LocalPool(Pool):
    """One worker in this process; the only pool that reports the steps inside a candidate.

    say: called with problems that are tried again. checked: called with self-checks that passed.
    sleep: waits so many seconds.
    """

    def __init__(
        self,
        preparation: PreparedJob,
        *,
        cache_folder: Path | None = None,
        say: Say = hush,
        checked: Checked = forget,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        device = choose_device(preparation.job.compute.device)
        self._worker = Worker(
            preparation, device=device, cache_folder=cache_folder, checked=checked
        )
        self._say = say
        self._sleep = sleep

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        """Score the candidates one after another, routes with the same beginning together."""
        ordered = in_order(candidates)
        self._worker.expect([candidate.recipe for candidate in ordered])
        for candidate in ordered:
            yield candidate, self._evaluate(candidate, observe)

    def _evaluate(self, candidate: Candidate, observe: Observer) -> Evaluation:
        reason = ""
        for pause_s in (0.0, *PAUSES_S):
            if reason:
                self._worker.free()
                self._say(in_short(candidate.key, reason, pause_s))
                self._sleep(pause_s)
            try:
                return self._worker.evaluate(candidate, observe)
            except Shortage as error:
                reason = str(error)
        raise ran_short(candidate.key, reason)

    def close(self) -> None:
        """Do nothing: the memory is freed with the pool."""

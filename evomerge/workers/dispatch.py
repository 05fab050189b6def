"""Hands out candidates to workers in other processes, and decides which workers are late or lost.

Only the rules are here; a crew runs the workers. A worker that dies or stands still is replaced,
and its candidate is handed out again. A candidate that ends its worker three times is recorded as
failed. Every wait has a limit, and the user is told of a long one.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from evomerge.errors import WorkerError
from evomerge.evaluate import Candidate, CandidateKey, Evaluation, Failed, Say, Scored, count_items
from evomerge.workers.pool import in_order, in_short, ran_short
from evomerge.workers.processes import Look
from evomerge.workers.worker import PAUSES_S

_LEAST_CPU = 0.02
"""Share of a processor that a busy worker uses at least; Ray's own threads use a fifth of it."""

_REMEMBERED = 256
"""How many of the latest candidates the time limit is computed from."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait, and how often to replace a worker.

    least_s, medians: a candidate is late after `medians` times the median time of candidates, and
    never before `least_s`. quiet_s: a late worker that stands still for so long is replaced.
    stretch: a late worker that is busy has so many times the limit. unknown_s: its limit if no
    candidate is scored yet. start_s: for a worker to start if no other is left. deaths: workers
    that a candidate may end. restarts: of all workers in a search. restarts_each: one more restart
    for so many candidates that are scored. poll_s: between looks at workers; room_s: between looks
    at the machines.
    """

    least_s: float = 60.0
    medians: float = 10.0
    quiet_s: float = 30.0
    stretch: float = 10.0
    unknown_s: float = 4 * 3600.0
    start_s: float = 300.0
    deaths: int = 3
    restarts: int = 10
    restarts_each: int = 4
    poll_s: float = 2.0
    room_s: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A worker has an outcome."""

    worker: int
    outcome: Evaluation


@dataclass(frozen=True, kw_only=True)
class Short:
    """A worker, or what runs it, ran short of memory or disk. alive: whether it still runs."""

    worker: int
    reason: str
    alive: bool = True


@dataclass(frozen=True, kw_only=True)
class Died:
    """A worker is gone."""

    worker: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker has started."""

    worker: int


Event = Answered | Short | Died | Ready


class Crew(Protocol):
    """Workers by number, from 0; all of them start by themselves."""

    def give(self, worker: int, candidate: Candidate) -> None:
        """Let a worker score a candidate; `wait` reports the outcome."""

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """What has happened, after at most so many seconds."""

    def look(self, worker: int) -> Look | None:
        """The state of its process; None if that cannot be seen."""

    def replace(self, worker: int) -> None:
        """End a worker and start another in its place; `wait` reports when it is ready."""

    def room(self) -> int:
        """How many workers fit on the machines that answer, with those that run."""


@dataclass(kw_only=True)
class _Worker:
    """The state of a worker: starting, idle or with a candidate, and since when."""

    since_s: float
    ready: bool
    candidate: Candidate | None = None
    look: Look | None = None
    looked_s: float = 0.0
    told_slow: bool = False
    abandoned: bool = False

    @property
    def pending(self) -> Candidate | None:
        """The candidate that the present call waits for."""
        return None if self.abandoned else self.candidate

    def begin(self, now_s: float, candidate: Candidate | None, *, ready: bool) -> None:
        self.since_s, self.ready, self.candidate = now_s, ready, candidate
        self.look, self.told_slow, self.abandoned = None, False, False


class Dispatch:
    """Hands candidates to a crew through one search; the crew's workers have started.

    clock: seconds that only grow.
    """

    def __init__(
        self,
        crew: Crew,
        *,
        workers: int,
        say: Say,
        clock: Callable[[], float],
        patience: Patience | None = None,
    ) -> None:
        self._crew = crew
        self._say = say
        self._clock = clock
        self._patience = patience or Patience()
        self._workers = [_Worker(since_s=clock(), ready=True) for _ in range(workers)]
        # (seconds, items) of scored candidates
        self._taken: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        self._scored = 0
        self._restarts = 0
        self._room_said = workers
        self._counted_s = clock()
        self._waiting: list[Candidate] = []
        self._deaths: Counter[CandidateKey] = Counter()
        self._shorts: Counter[CandidateKey] = Counter()
        self._not_before: dict[CandidateKey, float] = {}

    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Evaluation]]:
        """Keep every worker busy until all candidates have an outcome. Raises WorkerError."""
        self._waiting = in_order(candidates)
        self._deaths.clear()
        self._shorts.clear()
        self._not_before.clear()
        left = {candidate.key: candidate for candidate in candidates}
        for worker in self._workers:  # a candidate of an earlier call, which did not wait for it
            worker.abandoned = worker.candidate is not None
        while left:
            self._hand_out()
            events = self._crew.wait(self._patience.poll_s)
            outcomes = [self._take(event) for event in events]
            for outcome in (*outcomes, *self._replace_late()):
                if outcome is not None:
                    del left[outcome[0].key]
                    yield outcome
            if left:
                self._check_lost()

    def _hand_out(self) -> None:
        now_s = self._clock()
        for number, worker in enumerate(self._workers):
            if not worker.ready or worker.candidate is not None:
                continue
            due = [
                candidate
                for candidate in self._waiting
                if self._not_before.get(candidate.key, 0.0) <= now_s
            ]
            if not due:
                return
            self._waiting.remove(due[0])
            worker.begin(now_s, due[0], ready=True)
            self._crew.give(number, due[0])

    def _take(self, event: Event) -> tuple[Candidate, Evaluation] | None:
        """Act on an event; returns the candidate and its outcome, if the event brings one."""
        worker, now_s = self._workers[event.worker], self._clock()
        candidate, took_s = worker.pending, now_s - worker.since_s
        if isinstance(event, Ready):
            worker.begin(now_s, None, ready=True)
            return None
        if isinstance(event, Died) or (isinstance(event, Short) and not event.alive):
            self._replace(event.worker, f"died ({event.reason})")
        else:
            worker.begin(now_s, None, ready=True)
        if candidate is None:
            return None
        if isinstance(event, Answered):
            if isinstance(event.outcome, Scored):
                self._taken.append((took_s, count_items(candidate.items)))
                self._scored += 1
            return candidate, event.outcome
        if isinstance(event, Short):
            self._pause(candidate, event.reason)
            return None
        return self._again(candidate)

    def _again(self, candidate: Candidate) -> tuple[Candidate, Evaluation] | None:
        """Hand out again a candidate that ended its worker, unless it has done so too often."""
        self._deaths[candidate.key] += 1
        if self._deaths[candidate.key] < self._patience.deaths:
            self._waiting.insert(0, candidate)
            return None
        return candidate, Failed(reason=f"took its worker down {self._patience.deaths} times")

    def _pause(self, candidate: Candidate, reason: str) -> None:
        tries = self._shorts[candidate.key]
        if tries == len(PAUSES_S):
            raise ran_short(candidate.key, reason)
        self._say(in_short(candidate.key, reason, PAUSES_S[tries]))
        self._shorts[candidate.key] += 1
        self._not_before[candidate.key] = self._clock() + PAUSES_S[tries]
        self._waiting.insert(0, candidate)

    def _replace(self, number: int, why: str) -> None:
        worker = self._workers[number]
        with_what = f" with {worker.candidate.key}" if worker.candidate is not None else ""
        self._restarts += 1
        patience = self._patience
        if self._restarts > patience.restarts + self._scored // patience.restarts_each:
            raise WorkerError(
                f"workers had to be replaced {self._restarts} times in this search; the last one "
                f"{why}{with_what}"
            )
        self._say(f"worker {number + 1} {why}{with_what}; another is started in its place")
        worker.begin(self._clock(), None, ready=False)
        self._crew.replace(number)

    def limit_s(self, candidate: Candidate) -> float | None:
        """After how long a candidate is late, by the times of others; None if none is scored.

        The time of one with fewer items counts as longer, in proportion.
        """
        if not self._taken:
            return None
        items = count_items(candidate.items)
        likely = [took_s * max(1.0, items / max(1, on)) for took_s, on in self._taken]
        return max(self._patience.least_s, self._patience.medians * statistics.median(likely))

    def _replace_late(self) -> Iterator[tuple[Candidate, Evaluation] | None]:
        for number, worker in enumerate(self._workers):
            if worker.candidate is None:
                continue
            candidate, why = worker.pending, self._late(number, worker, worker.candidate)
            if why is not None:
                self._replace(number, why)
                if candidate is not None:
                    yield self._again(candidate)

    def _late(self, number: int, worker: _Worker, candidate: Candidate) -> str | None:
        """Why a worker is replaced; None if it is in time, or late but busy."""
        now_s, patience = self._clock(), self._patience
        took_s, limit_s = now_s - worker.since_s, self.limit_s(candidate)
        if took_s < (limit_s or patience.least_s):
            return None
        if worker.look is not None and now_s - worker.looked_s < patience.quiet_s:
            return None
        look, before = self._crew.look(number), worker.look
        late = f"has not answered for {took_s:.0f} s"
        if look is None and limit_s is not None:
            return late
        if look is not None and look.stopped:
            return f"stands still, stopped by a signal, and {late}"
        if look is not None and before is not None:
            cpu_share = (look.cpu_s - before.cpu_s) / (now_s - worker.looked_s)
            if cpu_share < _LEAST_CPU:
                return f"stands still and {late}"
        if took_s >= (patience.unknown_s if limit_s is None else limit_s * patience.stretch):
            return late
        worker.look, worker.looked_s = look or Look(stopped=False, cpu_s=0.0), now_s
        if before is not None and limit_s is not None and not worker.told_slow:
            worker.told_slow = True
            median_s = statistics.median(seconds for seconds, _ in self._taken)
            until_s = limit_s * patience.stretch
            self._say(
                f"worker {number + 1} has been at {candidate.key} for {took_s:.0f} s, where others "
                f"take {median_s:.3g} s; it is busy and has until {until_s:.0f} s"
            )
        return None

    def _check_lost(self) -> None:
        """Report how many workers there is still room for; raise WorkerError if none is left."""
        starting = [worker for worker in self._workers if not worker.ready]
        now_s = self._clock()
        if not starting and now_s - self._counted_s < self._patience.room_s:
            return
        self._counted_s = now_s
        room, all_there = self._crew.room(), len(self._workers)
        left = min(room, all_there)
        if left != self._room_said:
            self._room_said = left
            if left == all_there:
                self._say(f"there is room for all {all_there} workers again")
            elif left:
                self._say(
                    f"machines are lost: going on with {left} of {all_there} workers; machines "
                    "that join are used"
                )
        if len(starting) < all_there:
            return
        waited_s = now_s - max(worker.since_s for worker in starting)
        if room == 0:
            raise WorkerError("no worker is left: the machines that they ran on are lost")
        if waited_s >= self._patience.start_s:
            raise WorkerError(f"no worker is left, and none started in {waited_s:.0f} s")

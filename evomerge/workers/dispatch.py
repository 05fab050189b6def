"""Candidates handed out to workers elsewhere: who is late, who is lost, and when it is enough.

The rules alone, over a crew of workers that can be any. A worker that dies or stands still is
replaced and its candidate is handed out anew; a candidate that takes its worker down three times is
recorded as failed. Nobody is waited for without a limit and a word. It knows no Ray and no clock.
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
from evomerge.workers.worker import PAUSES_S

_LEAST_CPU = 0.02
"""Share of a processor that a worker at work takes; Ray's own threads take a fifth of it."""

_REMEMBERED = 256
"""Candidates whose times count."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long is waited, and how often a worker is replaced.

    least_s, medians: a candidate is late after so many medians of what candidates took, and never
    before `least_s`. A late worker that stands still for `quiet_s` is replaced; one that works has
    `stretch` times as long, `unknown_s` where no candidate is scored yet. start_s: for a worker to
    start while no other is left. deaths: workers that a candidate may take down. restarts: of all
    workers in a search, and one more for each `restarts_each` candidates that are scored. poll_s:
    between looks at workers; room_s: between looks at the machines.
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


@dataclass(frozen=True, kw_only=True)
class Look:
    """What can be seen of a worker's process: stopped, and the processor time it has taken."""

    stopped: bool
    cpu_s: float


class Crew(Protocol):
    """Workers by number, from 0; all of them start by themselves."""

    def give(self, worker: int, candidate: Candidate) -> None:
        """Let a worker score a candidate; `wait` tells what becomes of it."""

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """What has happened, at the latest after so many seconds."""

    def look(self, worker: int) -> Look | None:
        """How its process is doing; None where that cannot be seen."""

    def replace(self, worker: int) -> None:
        """End what is left of it and start another in its place; `wait` tells when it is ready."""

    def room(self) -> int:
        """How many workers the machines that answer have room for, those that run included."""


@dataclass(kw_only=True)
class _Worker:
    """A worker as it is seen from here: starting, idle or with a candidate, since when."""

    since_s: float
    ready: bool
    candidate: Candidate | None = None
    look: Look | None = None
    looked_s: float = 0.0
    slow_said: bool = False
    abandoned: bool = False

    @property
    def asked(self) -> Candidate | None:
        """The candidate that somebody waits for."""
        return None if self.abandoned else self.candidate

    def begin(self, now_s: float, candidate: Candidate | None, *, ready: bool) -> None:
        self.since_s, self.ready, self.candidate = now_s, ready, candidate
        self.look, self.slow_said, self.abandoned = None, False, False


class Dispatch:
    """Hands candidates to a crew, whose workers have started, through one search.

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
        # seconds and items of those that were scored
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
        left = {one.key: one for one in candidates}
        for worker in self._workers:  # what an earlier call did not wait for
            worker.abandoned = worker.candidate is not None
        while left:
            self._hand_out()
            events = self._crew.wait(self._patience.poll_s)
            taken = [self._take(event) for event in events]
            for found in (*taken, *self._replace_late()):
                if found is not None:
                    del left[found[0].key]
                    yield found
            if left:
                self._check_lost()

    def _hand_out(self) -> None:
        now_s = self._clock()
        for number, worker in enumerate(self._workers):
            if not worker.ready or worker.candidate is not None:
                continue
            due = [one for one in self._waiting if self._not_before.get(one.key, 0.0) <= now_s]
            if not due:
                return
            self._waiting.remove(due[0])
            worker.begin(now_s, due[0], ready=True)
            self._crew.give(number, due[0])

    def _take(self, event: Event) -> tuple[Candidate, Evaluation] | None:
        """Act on what has happened; the candidate that has its outcome by it, if one has."""
        worker, now_s = self._workers[event.worker], self._clock()
        candidate, took_s = worker.asked, now_s - worker.since_s
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
        """Hand out anew what took a worker down, unless it has done so too often."""
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
        """After how long a candidate is late, by what others took; None where none is scored.

        Others that were scored on fewer items took in proportion less.
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
            asked, why = worker.asked, self._late(number, worker, worker.candidate)
            if why is not None:
                self._replace(number, why)
                if asked is not None:
                    yield self._again(asked)

    def _late(self, number: int, worker: _Worker, candidate: Candidate) -> str | None:
        """Why a worker is given up; None where it is in time, or late and at work."""
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
            works = (look.cpu_s - before.cpu_s) / (now_s - worker.looked_s)
            if works < _LEAST_CPU:
                return f"stands still and {late}"
        if took_s >= (patience.unknown_s if limit_s is None else limit_s * patience.stretch):
            return late
        worker.look, worker.looked_s = look or Look(stopped=False, cpu_s=0.0), now_s
        if before is not None and limit_s is not None and not worker.slow_said:
            worker.slow_said = True
            median_s = statistics.median(seconds for seconds, _ in self._taken)
            until_s = limit_s * patience.stretch
            self._say(
                f"worker {number + 1} has been at {candidate.key} for {took_s:.0f} s, where others "
                f"take {median_s:.3g} s; it is at work and has until {until_s:.0f} s"
            )
        return None

    def _check_lost(self) -> None:
        """Say how many workers there is still room for; raise WorkerError where none is left."""
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

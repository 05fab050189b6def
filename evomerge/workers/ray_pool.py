"""Workers as Ray actors: one for each share of a device, here or on a cluster.

`dispatch` decides which worker gets a candidate and which one is replaced; this file does it by
Ray.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evomerge.errors import EvomergeError, WorkerError, is_shortage, one_line
from evomerge.evaluate import Candidate, Evaluation, Observer, Say, SelfCheck, hush, ignore
from evomerge.job import ANYWHERE, JobSpec
from evomerge.recipe import Recipe
from evomerge.workers.cluster import (
    Threads,
    check_room,
    check_seen,
    count_machines,
    count_room,
    naming_node,
    share_of,
    work_in,
)
from evomerge.workers.dispatch import Answered, Died, Dispatch, Event, Patience, Ready, Short
from evomerge.workers.pool import Pool
from evomerge.workers.preparation.fingerprints import check_alike, files_of
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from evomerge.workers.processes import Look, look_at, shortage_kills
from evomerge.workers.ray_session import RaySession, nodes
from evomerge.workers.worker import Checked, Shortage, Worker, forget

_FIRST_START_S = 1800.0
"""Limit for all workers to start, with the loading of models and tasks."""

_WORD_S = 60.0
"""After this time the user is told that workers are still starting."""

_HEAD_S = 10.0
"""Time between checks of the session's head while workers start."""

_LOOK_S = 20.0
"""Limit for a look at a process of another machine."""

_GONE = "its process or its machine is gone"
"""In place of Ray's own reasons, which are a page long and only guess the same."""


class _RanShort(str):
    """The reason that an actor returns instead of an outcome if its machine ran short."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What an actor is made of.

    make: makes the preparation. address: of the cluster, if it is on one. folder: where the driver
    works. files: what the preparation must be made of, see `files_of`; empty on this machine.
    """

    make: Callable[[], PreparedJob]
    threads: Threads
    device: str
    cache_folder: Path | None
    address: str | None
    folder: str
    files: Mapping[str, str]


def _prepare(job_text: str) -> PreparedJob:
    return prepare(JobSpec.model_validate_json(job_text, context=ANYWHERE))


class _Actor:
    """What runs in the other process: the same Worker, made from the job."""

    def __init__(self, plan: _Plan) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver gets it, and ends this one
        plan.threads.take()
        self._checks: list[SelfCheck] = []
        with naming_node(plan.address):
            check_seen(plan.device)
            if plan.address is not None:
                work_in(plan.folder)
            preparation = plan.make()
            check_alike(plan.files, preparation)
            self._worker = Worker(
                preparation,
                device=plan.device,
                cache_folder=plan.cache_folder,
                checked=self._checks.append,
            )

    def ready(self) -> tuple[int, str]:
        """The process id and the node; returns when all is loaded."""
        return os.getpid(), ray.get_runtime_context().get_node_id()

    def expect(self, recipes: Sequence[Recipe]) -> None:
        self._worker.expect(recipes)

    def evaluate(self, candidate: Candidate) -> tuple[Evaluation, list[SelfCheck]] | _RanShort:
        """The outcome, and the self-checks that came before it."""
        self._checks.clear()
        try:
            return self._worker.evaluate(candidate), list(self._checks)
        except Shortage as error:
            reason = _RanShort(error)
        self._worker.free()
        return reason


class RayCrew:
    """The actors by number. make: starts one. checked: called with self-checks that passed."""

    def __init__(
        self, make: Callable[[], Any], *, workers: int, gpus: float, checked: Checked
    ) -> None:
        self._make = make
        self._checked = checked
        self._gpus = gpus
        self._actors = [make() for _ in range(workers)]
        self._where: dict[int, tuple[int, str]] = {}  # worker -> process id, node
        self._kills = shortage_kills()
        self._asked: dict[Any, tuple[int, bool]] = {
            actor.ready.remote(): (number, True) for number, actor in enumerate(self._actors)
        }

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Process ids of the workers that have started."""
        return tuple(self._where[number][0] for number in sorted(self._where))

    def start(self, say: Say) -> None:
        """Wait until all have started. Raises WorkerError."""
        began_s, reported, count = time.monotonic(), False, len(self._actors)
        looked_s = began_s
        while len(self._where) < count:
            for event in self.wait(1.0):
                if isinstance(event, Died | Short):
                    raise WorkerError(f"a worker died while it started ({event.reason}); try fewer")
            now_s = time.monotonic()
            if now_s - looked_s >= _HEAD_S:
                nodes()
                looked_s = time.monotonic()
            waited_s = now_s - began_s
            progress = f"{len(self._where)} of {count} workers have started after {waited_s:.0f} s"
            if waited_s >= _FIRST_START_S:
                raise WorkerError(f"{progress}; see whether other work uses the machines")
            if waited_s >= _WORD_S and not reported:
                reported = True
                say(f"{progress}; waiting for the rest")

    def expect(self, recipes: Sequence[Recipe]) -> None:
        """Tell all workers which recipes come next; a worker that is replaced later is not told."""
        for actor in self._actors:
            actor.expect.remote(recipes)

    def give(self, worker: int, candidate: Candidate) -> None:
        """See Crew."""
        self._asked[self._actors[worker].evaluate.remote(candidate)] = worker, False

    def wait(self, timeout_s: float) -> list[Event]:
        """See Crew. Raises errors that concern every candidate: WorkerError, InputError."""
        if not self._asked:
            time.sleep(timeout_s)
            return []
        pending = list(self._asked)
        done, _ = ray.wait(pending, num_returns=1, timeout=timeout_s)
        if done and len(pending) > 1:
            done, _ = ray.wait(pending, num_returns=len(pending), timeout=0)
        return [self._event(reference) for reference in done]

    def look(self, worker: int) -> Look | None:
        """See Crew."""
        if worker not in self._where:
            return None
        process_id, node = self._where[worker]
        if node == ray.get_runtime_context().get_node_id():
            return look_at(process_id)
        on_node = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        remote_look = ray.remote(num_cpus=0, max_retries=0)(look_at)
        try:
            seen: Look | None = ray.get(
                remote_look.options(scheduling_strategy=on_node).remote(process_id), timeout=_LOOK_S
            )
        except ray.exceptions.RayError:
            return None
        return seen

    def replace(self, worker: int) -> None:
        """See Crew. Ray kills what does not answer after some seconds."""
        self._asked = {r: call for r, call in self._asked.items() if call[0] != worker}
        self._where.pop(worker, None)
        ray.kill(self._actors[worker])
        self._actors[worker] = self._make()
        self._asked[self._actors[worker].ready.remote()] = worker, True

    def room(self) -> int:
        """See Crew. Raises WorkerError."""
        return count_room(nodes(), gpus=self._gpus)

    def close(self) -> None:
        """End all workers."""
        for actor in self._actors:
            ray.kill(actor)

    def _event(self, reference: Any) -> Event:
        worker, starts = self._asked.pop(reference)
        try:
            answer = ray.get(reference)
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            if "creation task" in str(error):
                reason = str(error).strip().splitlines()[-1]  # below the other process's traceback
                if reason.startswith("evomerge.errors."):
                    reason = reason.partition(": ")[2]
                raise WorkerError(f"a worker cannot be started ({one_line(reason)})") from error
            return self._end_of(worker, error)
        except (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError):
            return Died(worker=worker, reason=_GONE)
        except ray.exceptions.RayError as error:
            cause = _cause(error)
            if isinstance(cause, EvomergeError):
                raise cause from error
            raise WorkerError(
                f"worker {worker + 1} failed ({one_line(f'{type(cause).__name__}: {cause}')})"
            ) from error
        if starts:
            self._where[worker] = answer
            return Ready(worker=worker)
        if isinstance(answer, _RanShort):
            return Short(worker=worker, reason=str(answer))
        outcome, checks = answer
        for check in checks:
            self._checked(check)
        return Answered(worker=worker, outcome=outcome)

    def _end_of(self, worker: int, error: Exception) -> Event:
        """The event of a worker that is gone: it was ended for lack of memory, or by itself."""
        kills, before = shortage_kills(), self._kills
        self._kills = kills
        if is_shortage(error) or "low on memory" in str(error) or kills > before:
            return Short(worker=worker, reason="killed for lack of memory", alive=False)
        return Died(worker=worker, reason=_GONE)


class RayPool(Pool):
    """Ray actors on this machine's loopback, or on the cluster at `address`.

    make: makes the preparation again in another process; that of the job if not given. say: called
    with lines about workers that are replaced or lost. checked: called with self-checks that
    passed. Raises JobError, WorkerError.
    """

    def __init__(
        self,
        preparation: PreparedJob,
        *,
        workers: int,
        address: str | None = None,
        make: Callable[[], PreparedJob] | None = None,
        cache_folder: Path | None = None,
        say: Say = hush,
        checked: Checked = forget,
        patience: Patience | None = None,
    ) -> None:
        job = preparation.job
        compute = job.compute
        share = share_of(compute.device, compute.gpus_per_worker, address=address)
        self._session = RaySession(workers=workers, address=address)
        self._crew: RayCrew | None = None
        try:
            check_room(workers=workers, gpus=share.gpus, where=_where(address))
            actor: Any = ray.remote(num_cpus=1, num_gpus=share.gpus, max_restarts=0)(_Actor)
            plan = _Plan(
                make=make or partial(_prepare, job.model_dump_json()),
                threads=Threads.like_here(workers=workers, machines=count_machines()),
                device=share.device,
                cache_folder=cache_folder,
                address=address,
                folder=os.getcwd(),
                files={} if address is None else files_of(preparation),
            )
            self._crew = RayCrew(
                lambda: actor.remote(plan),
                workers=workers,
                gpus=share.gpus,
                checked=checked,
            )
            self._crew.start(say)
        except BaseException:
            self.close()
            raise
        self._dispatch = Dispatch(
            self._crew, workers=workers, say=say, clock=time.monotonic, patience=patience
        )

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return () if self._crew is None else self._crew.process_ids

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        """Keep every worker busy until all candidates have an outcome."""
        if self._crew is not None and candidates:
            self._crew.expect([candidate.recipe for candidate in candidates])
        yield from self._dispatch.run(candidates)

    def close(self) -> None:
        """Stop the actors, and the Ray session if this pool started it."""
        if self._crew is not None:
            self._crew.close()
        self._session.close()


def _where(address: str | None) -> str:
    return "this machine" if address is None else f"the cluster at {address}"


def _cause(error: BaseException) -> BaseException:
    """The error that the worker raised, without what Ray wrapped around it."""
    return getattr(error, "cause", None) or error

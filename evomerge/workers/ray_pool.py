"""Workers as Ray actors: one for each share of a device, here or on a cluster.

Candidates are handed out one by one. A worker that dies is started again by Ray and its candidate
is handed out anew; a candidate that takes its worker down three times is recorded as failed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from evomerge.candidate import Candidate, Failed, Observer, Outcome, ignore
from evomerge.errors import EvomergeError, WorkerError, one_line
from evomerge.job import JobSpec
from evomerge.preparation import Preparation, prepare
from evomerge.recipe import Recipe
from evomerge.workers.pool import Pool, in_order
from evomerge.workers.worker import Worker, choose_device

MOST_DEATHS = 3
"""Workers a candidate may take down before it is recorded as failed."""


class _Actor:
    """What runs in the other process: the same Worker, made from the job."""

    def __init__(self, job_text: str, threads: int, device: str, facts_folder: Path | None) -> None:
        torch.set_num_threads(threads)
        preparation = prepare(JobSpec.model_validate_json(job_text))
        self._worker = Worker(preparation, device=device, facts_folder=facts_folder)

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    def ready(self) -> int:
        """The process id; answers when all is loaded, after a restart too."""
        return os.getpid()

    def expect(self, recipes: Sequence[Recipe]) -> None:
        self._worker.expect(recipes)

    def evaluate(self, candidate: Candidate) -> Outcome:
        return self._worker.evaluate(candidate)


class RayPool(Pool):
    """Ray actors on this machine's loopback, or on the cluster at `address`."""

    def __init__(
        self,
        preparation: Preparation,
        *,
        workers: int,
        address: str | None = None,
        facts_folder: Path | None = None,
    ) -> None:
        self._owns_session = not ray.is_initialized()
        if self._owns_session:
            _start_session(workers, address)
        job = preparation.job
        device = choose_device(job.compute.device)
        gpus = job.compute.gpus_per_worker
        share = 0.0
        if device.startswith("cuda"):
            share = gpus if isinstance(gpus, float) else 1.0
            there = ray.cluster_resources().get("GPU", 0.0)
            if workers * share > there:
                raise WorkerError(
                    f"compute.workers: {workers} workers of {share:g} GPUs each need more than the "
                    f"{there:g} here; give fewer workers, or a smaller gpus_per_worker"
                )
        cores = os.cpu_count() or 1
        threads = max(1, cores // workers)
        actor: Any = ray.remote(num_cpus=1, num_gpus=share, max_restarts=-1)(_Actor)
        self._actors = [
            actor.remote(job.model_dump_json(), threads, device, facts_folder)
            for _ in range(workers)
        ]
        try:
            self.process_ids: tuple[int, ...] = tuple(
                ray.get([a.ready.remote() for a in self._actors])
            )
        except (ray.exceptions.RayError, EvomergeError) as error:
            self.close()
            raise WorkerError(
                f"compute.workers: {workers} workers could not be started ({_cause(error)}); "
                "try fewer"
            ) from error

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Outcome]]:
        """Keep every worker busy until all candidates have an outcome."""
        waiting = in_order(candidates)
        for actor in self._actors:  # one that is started again computes every route from the start
            actor.expect.remote([candidate.recipe for candidate in waiting])
        deaths = {candidate.key: 0 for candidate in candidates}
        idle = list(self._actors)
        running: dict[Any, tuple[Any, Candidate | None]] = {}  # None: a worker that starts again
        while waiting or running:
            while waiting and idle:
                worker, asked = idle.pop(), waiting.pop(0)
                running[worker.evaluate.remote(asked)] = (worker, asked)
            [done], _ = ray.wait(list(running), num_returns=1)
            worker, candidate = running.pop(done)
            outcome = self._outcome(done)
            if outcome is None:
                running[worker.ready.remote()] = (worker, None)
            else:
                idle.append(worker)
            if candidate is None:
                continue
            if outcome is None:
                deaths[candidate.key] += 1
                if deaths[candidate.key] < MOST_DEATHS:
                    waiting.insert(0, candidate)
                    continue
                outcome = Failed(reason=f"took its worker down {MOST_DEATHS} times")
            assert not isinstance(outcome, int)
            yield candidate, outcome

    def _outcome(self, done: Any) -> Outcome | int | None:
        """What a worker answered; None when it died instead."""
        try:
            answer: Outcome | int = ray.get(done)
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.ActorDiedError) as error:
            if "creation task" in str(error):
                raise WorkerError(f"a worker cannot be started again ({_cause(error)})") from error
            return None
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        return answer

    def close(self) -> None:
        """Stop the actors, and the Ray session if this pool started it."""
        for actor in self._actors:
            ray.kill(actor)
        if self._owns_session:
            ray.shutdown()


def _start_session(workers: int, address: str | None) -> None:
    """Start or join Ray; it takes SIGTERM for itself, which stays ours."""
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        _connect(workers, address)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)


def _connect(workers: int, address: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
        return
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise WorkerError(
            f"--ray-address {address}: a cluster without a token runs anyone's code; start it and "
            "this search with RAY_AUTH_MODE=token"
        )
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise WorkerError(
            f"--ray-address {address}: no cluster answers ({one_line(error)}); "
            "check the address and the token"
        ) from error


def _cause(error: BaseException) -> BaseException:
    """What the worker raised, out of what Ray wrapped around it."""
    return getattr(error, "cause", None) or error

"""One process on a node of a Ray cluster, for long work that is not the scoring of candidates.

The process makes an object there, and its methods are called one after another. A long call runs in
a thread of the process, so that the process can say how far it is and that it is alive. Nothing is
tried again: a process that is lost ends the work in one line.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from evomerge.errors import EvomergeError, WorkerError, is_shortage, one_line
from evomerge.evaluate import Say, hush
from evomerge.workers.cluster import (
    Share,
    Threads,
    check_room,
    check_seen,
    count_workers_on,
    naming_node,
    work_in,
)
from evomerge.workers.ray_session import RaySession, nodes, own_node

Tell = Callable[[Any], object]
"""Called in the process with news of a long call; they are plain values."""

_START_S = 1800.0
"""Limit for a node to have room, and for the process to start."""

_WORD_S = 60.0
"""After this time the user is told that the process is still waited for."""

_SILENT_S = 600.0
"""Limit for an answer of a process that has started; it answers at once, whatever it works on."""

_NEWS_S = 0.5
"""How long a process waits for news before it answers that there are none."""

_LOOK_S = 10.0
"""Time between looks at the session's head while nothing is answered."""


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """The end of a long call: its answer, or the error it raised."""

    answer: Any = None
    error: EvomergeError | None = None


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the process is made of. folder: where the driver works."""

    device: str
    threads: Threads
    address: str
    folder: str


class _Actor:
    """What runs on the node."""

    def __init__(self, plan: _Plan) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver gets it, and ends this one
        self._plan = plan
        self._made: Any = None
        self._news: list[Any] = []
        self._ended: _Ended | None = None
        self._changed = threading.Condition()
        work_in(plan.folder)

    def start(self) -> tuple[str, int]:
        """The node, and the process id."""
        return own_node(), os.getpid()

    def make(self, make: Callable[[], object]) -> None:
        """Begin to make the object."""
        self._begin(lambda: self._make(make))

    def begin(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Begin a long call; its first argument tells news."""
        self._begin(lambda: getattr(self._made, method)(self._tell, *arguments))

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Make a short call."""
        return getattr(self._made, method)(*arguments)

    def look(self) -> tuple[list[Any], _Ended | None]:
        """The news of the long call since the last look, and its end if there is one."""
        with self._changed:
            if not self._news and self._ended is None:
                self._changed.wait(_NEWS_S)
            news, self._news = self._news, []
            return news, self._ended

    def _make(self, make: Callable[[], object]) -> None:
        check_seen(self._plan.device)
        self._made = make()

    def _tell(self, news: Any) -> None:
        with self._changed:
            self._news.append(news)
            self._changed.notify()

    def _begin(self, call: Callable[[], object]) -> None:
        self._ended = None
        threading.Thread(target=self._run, args=(call,), daemon=True).start()

    def _run(self, call: Callable[[], object]) -> None:
        self._plan.threads.take()
        try:
            with naming_node(self._plan.address):
                ended = _Ended(answer=call())
        except EvomergeError as error:
            ended = _Ended(error=error)
        except BaseException as error:  # whatever a model's or a task's own code raises
            ended = _Ended(error=_told(error))
        with self._changed:
            self._ended = ended
            self._changed.notify()


def _told(error: BaseException) -> WorkerError:
    reason = one_line(f"{type(error).__name__}: {error}")
    if is_shortage(error):
        return WorkerError(
            f"the node {own_node()} ran short ({reason}); free memory or disk there and try again"
        )
    return WorkerError(f"on the node {own_node()}: {reason}")


class ClusterProcess:
    """A process on the cluster at an address, with a device of its node; use it in a `with`.

    share: what it takes of its node. make: called there; makes the object. say: called with lines
    about a long wait. node: the name of its node. room: how many such processes fit there. Raises
    JobError if the cluster does not answer or has no such node, WorkerError if the process does not
    start.
    """

    def __init__(
        self, make: Callable[[], object], *, address: str, share: Share, say: Say = hush
    ) -> None:
        self._address = address
        self._session = RaySession(workers=1, address=address)
        self._actor: Any = None
        self.node = ""
        self.process_id = self.room = 0
        try:
            check_room(workers=1, gpus=share.gpus, where=f"the cluster at {address}")
            plan = _Plan(
                device=share.device,
                threads=Threads.like_here(),
                address=address,
                folder=os.getcwd(),
            )
            actor: Any = ray.remote(num_cpus=1, num_gpus=share.gpus, max_restarts=0)(_Actor)
            self._actor = actor.remote(plan)
            self.node, self.process_id = self._answer(
                self._actor.start.remote(), limit_s=_START_S, say=say
            )
            self.room = count_workers_on(self.node, share)
            self._answer(self._actor.make.remote(make))
            self._finish(lambda news: None)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Any, tell: Tell = lambda news: None) -> Any:
        """Call a method of the object, whose first argument is a function that tells news.

        tell: called here with every piece of news, in order. Raises what the method raises, with
        the node's name, and WorkerError if the process is lost.
        """
        self._answer(self._actor.begin.remote(method, arguments))
        return self._finish(tell)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object that takes no time. Raises WorkerError."""
        return self._answer(self._actor.ask.remote(method, arguments))

    def _finish(self, tell: Tell) -> Any:
        while True:
            news, ended = self._answer(self._actor.look.remote())
            for each in news:
                tell(each)
            if ended is not None:
                if ended.error is not None:
                    raise ended.error
                return ended.answer

    def _answer(self, reference: Any, *, limit_s: float = _SILENT_S, say: Say = hush) -> Any:
        """Wait for an answer, while the head of the session answers too. Raises WorkerError."""
        began_s = looked_s = time.monotonic()
        said = False
        while not ray.wait([reference], timeout=1.0)[0]:
            now_s = time.monotonic()
            if now_s - looked_s >= _LOOK_S:
                nodes()
                looked_s = time.monotonic()
            if now_s - began_s >= limit_s:
                raise WorkerError(self._silent(limit_s))
            if now_s - began_s >= _WORD_S and not said and not self.node:
                said = True
                say(f"the cluster at {self._address} has no free room yet; waiting for it")
        try:
            return ray.get(reference)
        except ray.exceptions.RayError as error:
            raise WorkerError(self._lost(error)) from error

    def _silent(self, limit_s: float) -> str:
        if not self.node:
            return (
                f"no process has started on the cluster at {self._address} in {limit_s:.0f} s; see "
                "whether other work uses its machines"
            )
        return (
            f"the process on the node {self.node} has not answered for {limit_s:.0f} s; see what "
            "holds that machine, and try again"
        )

    def _lost(self, error: Exception) -> str:
        where = f"on the node {self.node}" if self.node else f"on the cluster at {self._address}"
        if isinstance(error, ray.exceptions.OutOfMemoryError) or "low on memory" in str(error):
            return f"the process {where} was killed for lack of memory; free some and try again"
        if isinstance(error, ray.exceptions.RayTaskError) or "creation task" in str(error):
            reason = one_line(str(error).strip().splitlines()[-1])
            return f"the process {where} failed ({reason}); install the same evomerge there"
        return f"the process {where} is gone, or its machine is; try again"

    def close(self) -> None:
        """End the process, and leave the cluster."""
        if self._actor is not None:
            with contextlib.suppress(Exception):  # it is gone, or the cluster is
                ray.kill(self._actor)
        self._session.close()

    def __enter__(self) -> ClusterProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

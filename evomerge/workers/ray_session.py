"""Ray itself: a session of our own on this machine's loopback, or a cluster that is joined."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import ray
from ray._private import ray_constants

from evomerge.errors import Interrupt, JobError, WorkerError, one_line
from evomerge.workers.processes import kill_writers

_Answer = TypeVar("_Answer")

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}

_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable; with "0" all of a session listens on 127.0.0.1 alone, on Linux too."""

_REFUSED = (OSError, RuntimeError, ValueError, ray.exceptions.RayError)
"""What Ray raises if it cannot start, or join."""

_CLOSING_S = 5.0
"""Limit for Ray to close by itself; less than a command may take to close after a signal."""

_LISTENING_S = 10.0
"""Limit for the head of a cluster to take a connection."""

_KILLED_S = 10.0
"""Limit for Ray's call to return once the processes that it waits for are gone."""


_joined: str | None = None
"""The address of the cluster that this process has joined by itself, if it is still in it."""


class RaySession:
    """A session that this process has started or joined; a second one in it uses the first."""

    def __init__(self, *, workers: int, address: str | None) -> None:
        if address != _joined:
            leave_cluster()
        self._own = not ray.is_initialized() or _joined is not None
        self._token_folder: Path | None = None
        self._name: str | None = None  # of a session of our own
        if not self._own:
            return
        if address is not None:
            join_cluster(address)
            return
        # Ray would leave a token in the home folder, which all users could read.
        token_path = os.environ.get(_TOKEN_PATH)
        if token_path is None and _TOKEN not in os.environ:
            self._token_folder = Path(tempfile.mkdtemp(prefix="evomerge-ray-"))
            token_path = str(_write_token(self._token_folder))
        try:
            with (
                _environment({_MODE: os.environ.get(_MODE), _TOKEN_PATH: token_path}),
                _on_loopback(),
                _our_signals(),
            ):
                ray.init(
                    address="local",  # RAY_ADDRESS is ignored
                    num_cpus=workers,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    **_QUIET,
                )
        except _REFUSED as error:
            self.close()
            raise WorkerError(
                f"Ray cannot start workers on this machine ({one_line(error)}); set "
                "compute.workers: 1, or see what it wrote in /tmp/ray/session_latest/logs"
            ) from error
        self._name = ray.get_runtime_context().get_session_name()

    def close(self) -> None:
        """End what this process has started, by force if Ray does not; a joined cluster goes on."""
        if self._own:
            _shut_down(self._name)
        if self._token_folder is not None:
            shutil.rmtree(self._token_folder, ignore_errors=True)


def _shut_down(name: str | None) -> None:
    """Shut Ray down within a limit. name: of a session of our own.

    Its own call waits for a head that stands still, and does so again when Python exits.
    """
    global _joined
    _joined = None
    closing, done = _in_thread(ray.shutdown)
    try:
        closing.join(_CLOSING_S)
    finally:  # also if a signal came meanwhile
        if not done:
            if name is not None:
                kill_writers(name)
            closing.join(_KILLED_S)
            if not done:
                atexit.unregister(ray.shutdown)


def leave_cluster() -> None:
    """Leave the cluster that this process has joined, if it has."""
    if _joined is not None:
        _shut_down(None)


def join_cluster(address: str) -> None:
    """Join the cluster at an address, unless that is done; another one is left. Raises JobError."""
    global _joined
    if address != _joined:
        leave_cluster()
    if ray.is_initialized():
        return
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise JobError(
            f"--ray-address {address}: a cluster without a token runs anyone's code; start it and "
            "this command with RAY_AUTH_MODE=token"
        )
    _check_listening(address)
    with _heard_core() as said:
        try:
            with _our_signals():
                ray.init(address=address, **_QUIET)
            _joined = address
        except _REFUSED as error:
            said.seek(0)
            reason = one_line(error)
            if b"InvalidAuthToken" in said.read():
                reason = "it refuses the token"
            raise JobError(
                f"--ray-address {address}: the cluster cannot be joined ({reason}); check the "
                "token, and that a head of the same Ray listens there"
            ) from error


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Within, what Ray starts listens on this machine's loopback alone.

    Ray itself looks at its variable only when it is imported, and this process may have joined a
    cluster before.
    """
    before, clusters = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(_CLUSTERS, "0")
    ray_constants.ENABLE_RAY_CLUSTER = clusters != "0"
    try:
        with _environment({_CLUSTERS: clusters}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _heard_core() -> Iterator[BinaryIO]:
    """Within, stderr goes to a file: Ray's core says only there that a token is refused.

    It says so once a second.
    """
    with tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)


def _check_listening(address: str) -> None:
    """Raise JobError if nothing listens at HOST:PORT; Ray itself would try for half a minute."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if "/" in host or not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_LISTENING_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise JobError(
            f"--ray-address {address}: nothing answers there ({one_line(error)}); check the "
            "address, and that the head of the cluster runs"
        ) from error


def nodes(timeout_s: float = 20.0) -> list[Mapping[str, Any]]:
    """The machines of the session as Ray lists them. Raises WorkerError if Ray does not answer."""
    thread, answers = _in_thread(ray.nodes)
    thread.join(timeout_s)
    if not answers:
        raise WorkerError("the head of the Ray session does not answer any more")
    machines: list[Mapping[str, Any]] = answers[0]
    return machines


@functools.cache
def own_node() -> str:
    """The name of the node that this process is on: its address, if nobody has named it."""
    own = ray.get_runtime_context().get_node_id()
    return next(str(each["NodeName"]) for each in ray.nodes() if each["NodeID"] == own)


def _in_thread(call: Callable[[], _Answer]) -> tuple[threading.Thread, list[_Answer]]:
    """Run a call of Ray that may never return in a thread; returns it and a list for the answer."""
    answers: list[_Answer] = []

    def ask() -> None:
        with contextlib.suppress(Exception):  # whatever a dying session raises
            answers.append(call())

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, answers


def _write_token(folder: Path) -> Path:
    """A token that only this user can read."""
    path = folder / "token"
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
        stream.write(_token())
    return path


@functools.cache
def _token() -> str:
    """The token of this process. Ray reads it once, so a later session cannot have another."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Within, environment variables have these values; then they get their old ones back."""
    before = {name: os.environ.get(name) for name in values}
    _put(values)
    try:
        yield
    finally:
        _put(before)


def _put(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _our_signals() -> Iterator[None]:
    """Within, SIGTERM stays ours: Ray replaces its handler, and exits by it while it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        raise Interrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)

"""Ray clusters of several nodes on this machine, each at an address of its own on the loopback."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.ports import free_port

START_S = 120.0
_RAY = "from ray.scripts.scripts import main; main()"
_WAIT = """
import sys, time, ray
address, count = sys.argv[1:]
ray.init(address=address, log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(count):
    time.sleep(0.2)
"""


class Cluster:
    """A head and the nodes that were added, with one worker's room on each."""

    def __init__(self, folder: Path) -> None:
        """folder: for what Ray writes; its name must be short, as it is part of sockets' names."""
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._port = free_port()
        self.address = f"127.0.0.2:{self._port}"
        self._start("--head", f"--port={self._port}", f"--temp-dir={folder}")
        self._wait_for_head()

    def add(self) -> int:
        """Add a node; its number."""
        self._start(f"--address={self.address}")
        return len(self._nodes) - 1

    def wait(self, count: int) -> None:
        """Wait until there are so many nodes, with the head."""
        subprocess.run(
            [sys.executable, "-c", _WAIT, self.address, str(count)], check=True, timeout=START_S
        )

    def kill(self, number: int) -> None:
        """End a node as a loss of power does: all its processes, none of which is told."""
        node = psutil.Process(self._nodes[number].pid)
        for process in [*node.children(recursive=True), node]:
            process.kill()
        self._nodes[number].wait()

    def close(self) -> None:
        """End all nodes that there are."""
        for number in reversed(range(len(self._nodes))):
            if self._nodes[number].poll() is None:
                self.kill(number)

    def _start(self, *options: str) -> None:
        address = f"127.0.0.{len(self._nodes) + 2}"
        command = [sys.executable, "-c", _RAY, "start", *options, "--block", "--num-cpus=1"]
        command += [f"--node-ip-address={address}", "--object-store-memory=100000000"]
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        if "--head" in options:
            command += ["--include-dashboard=false"]
        self._nodes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))

    def _wait_for_head(self) -> None:
        until = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.2", self._port), timeout=1.0).close()
                return
            except OSError:
                assert self._nodes[0].poll() is None and time.monotonic() < until
                time.sleep(0.2)


@contextmanager
def cluster(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of one node, whose token this process has too. folder: for the token."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    short = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    try:
        made = Cluster(short)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(short, ignore_errors=True)

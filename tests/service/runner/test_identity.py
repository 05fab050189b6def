"""Which process it is: its number, its start and its boot, all three."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from evomerge.service.runner.identity import (
    ProcessIdentity,
    identity_of,
    marked,
    own_identity,
    started_at,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, "MARK": "j1:2"})
    yield process
    process.kill()
    process.wait()


def test_a_process_is_known_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    assert identity.is_here
    assert identity.alive
    assert identity == identity_of(sleeper.pid)
    assert identity.send(signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    # It has ended, though nobody has asked how.
    assert not identity.alive
    sleeper.wait()
    assert not identity.alive
    assert not identity.send(signal.SIGKILL)
    assert started_at(sleeper.pid) == ""


def test_another_process_with_its_number_is_not_it_and_gets_no_signal(
    sleeper: subprocess.Popen[bytes],
) -> None:
    identity = identity_of(sleeper.pid)
    earlier = replace(identity, started=str(int(identity.started) - 1))
    assert not earlier.alive
    assert not earlier.send(signal.SIGKILL)
    assert identity.alive
    assert not replace(identity, boot="earlier/1").is_here


def test_an_identity_is_the_same_from_inside_and_outside() -> None:
    program = (
        "from evomerge.service.runner.identity import own_identity\n"
        "print(own_identity(), flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(identity_of(process.pid))
        process.communicate("\n")
    assert own_identity().pid == os.getpid()


def test_a_name_with_brackets_and_spaces_does_not_confuse() -> None:
    program = (
        "import ctypes\nctypes.CDLL(None).prctl(15, b') Z 1 (x)', 0, 0, 0)\n"
        "print('ready', flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        before = started_at(process.pid)
        assert process.stdout is not None
        process.stdout.readline()
        assert started_at(process.pid) == before != ""
        process.communicate("\n")


def test_processes_are_found_by_a_whole_mark(sleeper: subprocess.Popen[bytes]) -> None:
    wanted: ProcessIdentity = identity_of(sleeper.pid)
    assert list(marked("MARK=j1:2")) == [wanted]
    assert list(marked("MARK=j1:")) == []

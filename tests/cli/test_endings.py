"""However a command is ended, it says so in a line, in time, and with the right exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from evomerge.cli.endings import answering, interruptible
from evomerge.errors import JobError, StorageError, WorkerError

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def ending(work: Callable[[], None], *, again: str | None = None) -> int:
    """The exit code of a command that does this."""
    going_on = contextlib.nullcontext() if again is None else interruptible(again)
    with pytest.raises(typer.Exit) as info, answering(), going_on:
        work()
    return info.value.exit_code


def fail(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_anything_is_begun_ends_with_a_line(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    assert ending(lambda: os.kill(os.getpid(), number)) == 130
    assert capsys.readouterr().err == "Interrupted.\n"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_work_ends_with_the_command_that_goes_on(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    code = ending(lambda: os.kill(os.getpid(), number), again="evomerge resume runs/x")
    assert code == 130
    assert capsys.readouterr().err == "Interrupted; go on with: evomerge resume runs/x\n"


@pytest.mark.parametrize(
    "error", [StorageError("the record cannot be written"), OSError(5, "lost")]
)
@pytest.mark.parametrize("again", [None, "evomerge resume runs/x"])
def test_an_error_that_an_interrupt_leads_to_is_an_interrupt(
    error: Exception, again: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    assert ending(work, again=again) == 130
    [line] = capsys.readouterr().err.splitlines()
    assert line == ("Interrupted." if again is None else f"Interrupted; go on with: {again}")


def test_signals_that_are_ignored_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with answering():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (WorkerError("no worker is left"), "no worker is left; go on with: evomerge resume runs/x"),
        (JobError("budget: none"), "budget: none"),
        (MemoryError("72 GB"), "the machine ran short (MemoryError: 72 GB); free memory or disk"),
        (SystemExit(0), "code of a task or model ended the process (exit code 0)"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    error: BaseException, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(fail(error), again="evomerge resume runs/x") == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"evomerge: {line}")


def test_an_error_of_ours_that_nobody_foresaw_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), answering():
        fail(ZeroDivisionError())()


def run(work: str, *, closing_s: float = 60.0, terminated: bool = True) -> tuple[int, str]:
    """A command in a process of its own, which sends itself SIGTERM soon after it began to work."""
    program = (
        "import hashlib, os, sys, threading, time, typer\n"
        "from evomerge.cli import endings\n"
        f"endings.CLOSING_S = {closing_s}\n"
        "def terminate(): os.kill(os.getpid(), 15)\n"
        "try:\n"
        "    with endings.answering(), endings.interruptible('evomerge resume runs/x'):\n"
        f"        if {terminated}: threading.Timer(0.2, terminate).start()\n"
        f"        {work}\n"
        "except typer.Exit as error:\n"
        "    os._exit(error.exit_code + 1)\n"  # not ended as it stood
    )
    # From Python 3.12 on a fork beside threads is warned of; the command's own lines are meant.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stderr


LINE = "Interrupted; go on with: evomerge resume runs/x\n"


@pytest.mark.parametrize(
    "work",
    [
        "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",  # a library's long call
        "while True: exec('try: time.sleep(60)\\nexcept BaseException: pass')",  # one that goes on
    ],
)
def test_a_command_that_cannot_close_is_ended_in_time(work: str) -> None:
    assert run(work, closing_s=0.3) == (130, LINE)


def test_a_second_signal_ends_a_command_that_is_closing() -> None:
    work = "exec('try: time.sleep(60)\\nfinally:\\n terminate()\\n time.sleep(60)')"
    assert run(work) == (130, LINE)


def test_a_child_that_a_library_forks_is_ended_alone() -> None:
    work = (
        "exec('child = os.fork()\\n"
        "if not child: time.sleep(60)\\n"
        "os.kill(child, 15)\\n"
        "status = os.waitpid(child, 0)[1]\\n"
        "os._exit(os.WTERMSIG(status))')"
    )
    assert run(work, closing_s=0.0, terminated=False) == (signal.SIGTERM, "")


def test_a_connection_that_is_lost_is_no_reader_that_has_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ending(fail(BrokenPipeError("the server went away"))) == 2
    assert "lost a connection (the server went away)" in capsys.readouterr().err


@pytest.mark.parametrize("show", ["print", "Console().print"])
def test_a_reader_that_has_gone_is_no_fault_of_the_machine_or_a_task(show: str) -> None:
    code = (
        "import sys, typer\n"
        "from rich.console import Console\n"
        f"show = {show}\n"
        "from evomerge.cli.endings import answering\n"
        "try:\n"
        "    with answering():\n"
        "        for _ in range(200_000):\n"
        "            show('a line')\n"
        "except typer.Exit as ended:\n"
        "    sys.exit(ended.exit_code)\n"
    )
    ended = subprocess.run(
        ["bash", "-c", f'set -o pipefail; {sys.executable} -c "$CODE" | head -1'],
        env={**os.environ, "CODE": code},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("a line\n", "", 141)


@pytest.mark.parametrize(
    ("says", "code", "quickly"), [(True, 0, True), (True, 2, False), (False, 0, False)]
)
def test_a_process_ends_by_itself_after_what_is_registered_for_its_end(
    says: bool, code: int, quickly: bool
) -> None:
    program = (
        "import atexit, os, sys, threading, time, typer\n"
        "from evomerge.cli.endings import leave_quickly, run\n"
        "app = typer.Typer(add_completion=False)\n"
        "class Held:\n"
        "    def __del__(self): os.write(1, b'taken down\\n')\n"
        "held = Held()\n"
        "def last():\n"
        "    time.sleep(0.2)\n"
        "    print('thread')\n"
        "@app.command()\n"
        "def work():\n"
        "    atexit.register(print, 'registered')\n"
        f"    if {says}: leave_quickly()\n"
        "    threading.Thread(target=last).start()\n"
        f"    raise typer.Exit({code})\n"
        "run(app)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600
    )
    said = "" if quickly else "thread\nregistered\n"
    assert (ended.stdout, ended.stderr, ended.returncode) == (said, "", code)


def in_shell(program: str, streams: str) -> subprocess.CompletedProcess[str]:
    """A program whose streams a shell has changed."""
    return subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$CODE" {streams}'],
        # As for users: what is printed stays in memory until it is flushed.
        env={**os.environ, "CODE": program, "PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_streams_that_the_caller_closed_lead_nowhere(tmp_path: Path) -> None:
    made = tmp_path / "model"
    program = (
        "import os, sys, typer\n"
        "from evomerge.cli.endings import run\n"
        "app = typer.Typer(add_completion=False)\n"
        "@app.command()\n"
        "def work():\n"
        f"    with open({str(made)!r}, 'w'):\n"
        "        for number in (1, 2): os.write(number, b'of a library')\n"
        "    print(sys.stdin.read(), file=sys.stderr)\n"
        "    print('a line')\n"
        "run(app)\n"
    )
    assert (in_shell(program, "<&- >&- 2>&-").returncode, made.read_text()) == (0, "")


@pytest.mark.parametrize("argument", ["--help", ""])
def test_output_that_finds_no_room_is_no_traceback(argument: str) -> None:
    program = (
        "import typer\n"
        "from evomerge.cli.endings import run\n"
        "app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)\n"
        "app.command()(lambda: print('of a task'))\n"
        "run(app)\n"
    )
    ended = in_shell(program, f"{argument} >/dev/full")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("evomerge: the machine ran short (OSError: ")


def test_who_does_not_wait_for_threads_still_leaves_no_temporary_files() -> None:
    program = (
        "import atexit, os, signal, threading, time, typer\n"
        "from evomerge.cli.endings import run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "app = typer.Typer(add_completion=False)\n"
        "def last():\n"
        "    threading.main_thread().join(0.1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "@app.command()\n"
        "def work():\n"
        "    atexit.register(print, 'removed')\n"
        "    threading.Thread(target=last).start()\n"
        "run(app)\n"
    )
    ended = in_shell(program, "")
    assert (ended.stdout, ended.stderr, ended.returncode) == ("removed\n", "", 0)


def test_what_is_profiled_is_taken_down_as_usual() -> None:
    program = (
        "import sys, typer\n"
        "from evomerge.cli.endings import run\n"
        "app = typer.Typer(add_completion=False)\n"
        "app.command()(lambda: None)\n"
        "run(app)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "cProfile", "/dev/stdin"],
        input=program,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "function calls" in ended.stdout

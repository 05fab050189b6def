"""How a command ends: exit codes, errors in one line, signals without a long wait."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import typer

from evomerge.errors import EvomergeError, Interrupt, WorkerError, is_shortage, one_line, visible

# Output of the commands, with control characters escaped, so that no text acts on a terminal.


def say(line: str, *, err: bool = False) -> None:
    """Print a line to stdout, or to stderr."""
    typer.echo(visible(line), err=err)


def say_error(line: str) -> None:
    """Print a line to stderr."""
    say(line, err=True)


def shown_path(path: Path) -> Path:
    """A path relative to the current folder, if it is inside."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def say_json(document: object) -> None:
    """Print plain values as JSON."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    # JSON's own escapes, because json leaves most control characters as they are.
    typer.echo("".join(sign if sign == "\n" else _escaped(sign) for sign in text))


def _escaped(sign: str) -> str:
    if visible(sign) == sign:
        return sign
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else json.dumps(sign)[1:-1]


NO_GAIN = 3
INTERRUPTED = 130
PIPE_CLOSED = 141

_LONGEST = 1200
"""Most characters of a message; our longest messages with two paths are shorter."""

CLOSING_S = 8.0
"""Seconds that a command may take to close after a signal; then the process is ended."""

_SIGNALS = [
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if (number := getattr(signal, name, None)) is not None
]


class _Interrupts:
    """Signals from a user or a scheduler: the first closes the command, another ends it at once.

    The record survives a kill at any moment. So a command that cannot close in time (in a library's
    long call, or because a library swallowed the interrupt) is ended by a thread. The interpreter
    reports signals to this thread even while it cannot run their handlers.
    """

    def __init__(self) -> None:
        self.line = "Interrupted."
        self.received = False
        self._closed = threading.Event()
        self._told, self._tell = os.pipe()
        os.set_blocking(self._tell, False)
        self._before = signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.received:
            self._end()
        self.received = True
        raise Interrupt

    def close(self) -> None:
        """Stop watching, after the command has ended by itself."""
        self._closed.set()
        signal.set_wakeup_fd(self._before)
        os.close(self._tell)
        self._thread.join()
        os.close(self._told)

    def _watch(self) -> None:
        while numbers := os.read(self._told, 1):
            if numbers[0] in _SIGNALS and not self._closed.wait(CLOSING_S):
                self._end()

    def _end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a live display hides it
            os.write(2, f"{show_cursor}{self.line}\n".encode())
        os._exit(INTERRUPTED)


_interrupts: _Interrupts | None = None
"""The signals of the running command, if there is one; they belong to the whole process."""


@contextlib.contextmanager
def interruptible(again: str) -> Iterator[None]:
    """If a signal or a dead worker stops the work, print the command that continues it."""
    line = f"Interrupted; go on with: {again}"
    before = _interrupts.line if _interrupts is not None else ""
    if _interrupts is not None:
        _interrupts.line = line
    try:
        yield
    except KeyboardInterrupt:
        _say(line)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        _end_if_interrupted(line)
        if isinstance(error, WorkerError):
            raise WorkerError(f"{error}; go on with: {again}") from error
        raise
    finally:
        if _interrupts is not None:
            _interrupts.line = before


def _end_if_interrupted(line: str) -> None:
    """Exit as interrupted if a signal came before the error, which is then its consequence."""
    if _interrupts is not None and _interrupts.received:
        _say(line)
        raise typer.Exit(INTERRUPTED) from None


def say_note(note: str) -> None:
    """Print a note for the user to stderr."""
    say(f"note: {note}", err=True)


def drop_output() -> None:
    """Let stdout lead nowhere, after what is printed can no longer be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _reader_gone() -> bool:
    """Whether the reader of stdout has gone, as `head` does."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Turn our errors, signals and shortages of the machine into one line and an exit code."""
    with _receiving_signals():
        try:
            yield
        except KeyboardInterrupt:
            _say("Interrupted.")
            raise typer.Exit(INTERRUPTED) from None
        except typer.Exit:
            raise
        except EvomergeError as error:
            _end_if_interrupted("Interrupted.")
            _say(f"evomerge: {_shortened(one_line(error))}")
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError as error:
            if not _reader_gone():
                _say(f"evomerge: code of a task or model lost a connection ({one_line(error)})")
                raise typer.Exit(EvomergeError.exit_code) from error
            drop_output()
            raise typer.Exit(PIPE_CLOSED) from error
        except SystemExit as error:  # the commands themselves raise typer.Exit
            if isinstance(
                error.__context__, BrokenPipeError
            ):  # rich exits this way, without a message
                raise typer.Exit(PIPE_CLOSED) from error
            _say(
                f"evomerge: code of a task or model ended the process (exit code {error.code}); "
                "remove its call of exit()"
            )
            raise typer.Exit(EvomergeError.exit_code) from error
        except Exception as error:
            _end_if_interrupted("Interrupted.")
            if not is_shortage(error):
                if not isinstance(error, OSError) or error.filename is None:
                    raise
                # The system refuses a path of the command line.
                problem = f"{error.filename}: {error.strerror}; check the path"
                _say(f"evomerge: {_shortened(one_line(problem))}")
                raise typer.Exit(EvomergeError.exit_code) from error
            _say_shortage(error)
            raise typer.Exit(EvomergeError.exit_code) from error


def _say_shortage(error: Exception) -> None:
    reason = one_line(f"{type(error).__name__}: {error}")
    _say(f"evomerge: the machine ran short ({reason}); free memory or disk and try again")


@contextlib.contextmanager
def _receiving_signals() -> Iterator[None]:
    """Let signals raise Interrupt while a command runs; ignored ones (nohup) stay ignored."""
    global _interrupts
    if threading.current_thread() is not threading.main_thread() or _interrupts is not None:
        yield
        return
    _leave_children()
    _interrupts = _Interrupts()
    Interrupt.expected = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    before = {
        number: handler
        for number in _SIGNALS
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    for number in before:
        signal.signal(number, _interrupts.receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _interrupts.close()
        _interrupts = None
        Interrupt.expected = False


# The end of the process. To free what large libraries hold takes longer than to import some. And
# what was loaded is not collected any more, see startup.py, which some libraries would call leaks.


_quickly = False


def leave_quickly() -> None:
    """Say that a command has nothing to clean up: no workers, no temporary files, no threads."""
    global _quickly
    _quickly = True


def run(app: typer.Typer) -> None:
    """Run the command line and end the process, but for the interpreter's own taking down."""
    global _quickly
    _quickly = False
    _open_closed()
    try:
        try:
            app()
        except OSError as error:  # of help and version, which are shown outside of `answering`
            if not is_shortage(error):
                raise
            _say_shortage(error)
            raise SystemExit(EvomergeError.exit_code) from error
    except SystemExit as ending:
        code = ending.code or 0
        if isinstance(ending.__context__, BrokenPipeError):  # of help and version too
            code = PIPE_CLOSED
        if not isinstance(code, int) or _is_watched():
            raise
        if code or not _quickly:
            # Who does not wait for the threads still has temporary files to be removed.
            with contextlib.suppress(KeyboardInterrupt):
                threading._shutdown()  # type: ignore[attr-defined]
            with contextlib.suppress(KeyboardInterrupt):
                atexit._run_exitfuncs()
        os._exit(_flushed(code))


def _flushed(code: int) -> int:
    """Write what is left of the output; the exit code, which says so where it cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or PIPE_CLOSED
    except OSError as error:
        if not code:
            _say_shortage(error)
            code = EvomergeError.exit_code
    except ValueError:  # it was closed
        pass
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    return code


def _open_closed() -> None:
    """Let the streams that the caller has closed lead nowhere.

    Else Python has None in their place, and the next file that is opened gets the number of one:
    what a library prints would be written into a model.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            os.set_inheritable(opened, True)
            setattr(sys, name, os.fdopen(opened, mode, encoding="utf-8"))


def _is_watched() -> bool:
    """Whether a profiler, a debugger or the like waits for the end of the program."""
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    tools = () if monitoring is None else map(monitoring.get_tool, range(6))
    return any(each is not None for each in (sys.getprofile(), sys.gettrace(), *tools))


def _leave_child() -> None:
    """Restore the default signals in a child that a library forks; it is not ours to end."""
    global _interrupts
    if _interrupts is not None:
        _interrupts = None
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
    _unblock()


def _block() -> None:
    """Block signals during a fork, so that none reaches a child that still has our handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@functools.cache
def _leave_children() -> None:
    """Register what is done at forks, once in a process, because it cannot be undone."""
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_leave_child)


def _say(line: str) -> None:
    """Print a line to stderr; the terminal may be gone."""
    with contextlib.suppress(OSError):
        say(line, err=True)


def _shortened(line: str) -> str:
    """Cut a far too long line in the middle, where it quotes a long value."""
    return line if len(line) <= _LONGEST else f"{line[:300]} ... {line[-300:]}"

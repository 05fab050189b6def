"""How a command ends: exit codes, errors of ours in one line, interrupts."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import typer

from evomerge.errors import EvomergeError, one_line

NO_GAIN = 3
INTERRUPTED = 130

_LONGEST = 1200
"""Characters of a message that are shown; the longest of ours with two paths in it are shorter."""


@contextlib.contextmanager
def interruptible(again: str) -> Iterator[None]:
    """An interrupt, or a scheduler's SIGTERM, ends with the command that goes on from there."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"Interrupted; go on with: {again}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Errors of ours become one line and their exit code; so does an interrupt."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except EvomergeError as error:
        typer.echo(f"evomerge: {_shortened(one_line(error))}", err=True)
        raise typer.Exit(error.exit_code) from error
    except OSError as error:  # a path of the command line that the system does not take
        if error.filename is None:
            raise
        said = f"{error.filename}: {error.strerror}; check the path"
        typer.echo(f"evomerge: {_shortened(one_line(said))}", err=True)
        raise typer.Exit(EvomergeError.exit_code) from error


def _shortened(line: str) -> str:
    """A line that repeats what was far too long is cut where it repeats it: in the middle."""
    return line if len(line) <= _LONGEST else f"{line[:300]} ... {line[-300:]}"

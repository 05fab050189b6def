"""How a command ends: exit codes, errors of ours in one line, interrupts."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import typer

from evomerge.errors import EvomergeError, one_line

NO_GAIN = 3
INTERRUPTED = 130


@contextlib.contextmanager
def interruptible(again: str) -> Iterator[None]:
    """An interrupt, or a scheduler's SIGTERM, ends with the command that goes on from there."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"Interrupted; go on with: {one_line(again)}", err=True)
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
        typer.echo(f"evomerge: {one_line(error)}", err=True)
        raise typer.Exit(error.exit_code) from error

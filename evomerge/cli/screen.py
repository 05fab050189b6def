"""What the commands print: whatever is in a name or a reason, nothing of it acts on a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from evomerge.errors import visible


def say(line: str, *, err: bool = False) -> None:
    """Print a line to stdout, or to stderr."""
    typer.echo(visible(line), err=err)


def say_error(line: str) -> None:
    """Print a line to stderr."""
    say(line, err=True)


def shown_path(path: Path) -> Path:
    """A path as short as it can be written where the command runs."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def say_json(document: object) -> None:
    """Print plain values as JSON."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    # JSON's own escapes, for json leaves most signs that a terminal obeys as they are.
    typer.echo("".join(sign if sign == "\n" else _escaped(sign) for sign in text))


def _escaped(sign: str) -> str:
    if visible(sign) == sign:
        return sign
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else json.dumps(sign)[1:-1]

"""What transformers said about configurations, kept in memory, and on disk for the next process.

To import transformers takes longer than most merges. Its answers depend on the question and on the
installed packages alone, so a process that has not imported it reads an answer that an earlier
process got. Without a file, or where files cannot be written, transformers is asked.

Every candidate has a configuration, and nearly all have the same one, so no process asks twice.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import sys
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGES = ("transformers", "torch", "huggingface_hub")
"""What answers depend on, besides the code of this package."""

_ROOMS = ("sources", "vocabulary", "merge", "export")
"""The rooms that ask, or that make answers of what transformers says."""

_SLOW = "transformers.modeling_utils"
"""Once this is imported, to ask costs milliseconds, and files are not worth it."""

_MOST_REMEMBERED = 1000
_remembered: dict[str, str] = {}
"""Question -> answer of this process, both as JSON."""


@dataclass(frozen=True)
class Question:
    """A question to transformers.

    text: the question; None if JSON cannot hold it. file: of its answer; None where no answers are
    kept on disk.
    """

    text: str | None
    file: Path | None

    @property
    def answer(self) -> Any:
        """The JSON document that was kept for it; None where there is none, or it is damaged."""
        if self.text in _remembered:
            return json.loads(_remembered[self.text])
        if self.file is None:
            return None
        try:
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            return kept["answer"] if kept["sha256"] == _hash(kept["answer"]) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def keep(self, answer: Any) -> None:
        """Keep an answer, unless JSON would change it. A full disk is no error."""
        if self.text is None:
            return
        try:
            text = json.dumps({"answer": answer, "sha256": _hash(answer)})
            same = json.loads(text)["answer"] == answer
        except (TypeError, ValueError):
            return
        if not same:
            return
        if len(_remembered) >= _MOST_REMEMBERED:
            _remembered.clear()
        _remembered[self.text] = json.dumps(answer)
        if self.file is None:
            return
        with contextlib.suppress(OSError):
            replace_file(self.file, text)


def _hash(answer: Any) -> str:
    return hashlib.sha256(json.dumps(answer).encode()).hexdigest()


def ask(kind: str, *given: Any) -> Question:
    """A question of a kind about JSON documents; the answer must depend on nothing else."""
    try:
        text = json.dumps([kind, *given])
    except (TypeError, ValueError):
        return Question(None, None)
    folder = kept_folder("transformers") if _is_open() else None
    if folder is None:
        return Question(text, None)
    whole = json.dumps(_installed()) + text
    return Question(text, folder / f"{hashlib.sha256(whole.encode()).hexdigest()}.json")


@functools.cache
def _is_open() -> bool:
    """Whether this process saves time; decided once, so that the first one keeps all answers."""
    return _SLOW not in sys.modules


def kept_folder(name: str) -> Path | None:
    """Where this user's processes keep what they found, in a folder of that name."""
    kept = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(kept) if kept else Path.home() / ".cache") / "evomerge" / name
    except RuntimeError:  # a user without a home
        return None


def replace_file(file: Path, text: str) -> None:
    """Write a file in one step, with its folder. Raises OSError."""
    partial = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


@functools.cache
def _installed() -> list[Any]:
    """What answers depend on: versions, and the code that asks."""
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for room in _ROOMS:
        for file in sorted((package / room).rglob("*.py")):
            code.update(file.read_bytes())
    return [platform.python_version(), code.hexdigest(), *map(_stamp, _PACKAGES)]


def _stamp(package: str) -> list[Any]:
    """Where a package is and when it was installed; nothing of it is imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return [package]
    file = os.path.realpath(spec.origin)  # an environment may be entered by several paths
    facts = os.stat(file)
    return [file, facts.st_size, facts.st_mtime_ns]

"""The push of an export to the hub, also after an attempt that was killed in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evomerge.api import PushError, check_push, push_folder
from evomerge.errors import RunError
from evomerge.service.queue.exports import MADE, made_here
from evomerge.service.runner.attempt import Attempt, Failure


@dataclass(frozen=True, kw_only=True)
class Push:
    """An upload that the hub has been asked about. new: whether there was no such repository."""

    attempt: Attempt
    repo: str
    public: bool
    new: bool

    @classmethod
    def of(cls, attempt: Attempt) -> Push | None:
        """What is asked for, before anything is written; None if nothing is pushed.

        Raises RunError, Failure for what may pass.
        """
        repo, public = attempt.request["push"], attempt.request["public"]
        if repo is None:
            return None
        own = made_here(attempt.database, attempt.job, repo, attempt.settings)
        with _failing():
            there = check_push(repo, public=public, own=own)
        return cls(attempt=attempt, repo=repo, public=public, new=not there)

    def send(self, folder: Path) -> str:
        """Upload the folder; the URL of the repository. Raises RunError, Failure."""
        mark = self.attempt.settings.run_dir(self.attempt.job.id) / MADE
        # Before the repository is made: an attempt after a kill must know it as its own.
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(self.repo, encoding="utf-8")
        self.attempt.say(f"uploading to {self.repo} ...")
        try:
            with _failing():
                return push_folder(folder, self.repo, public=self.public, new=self.new)
        except PushError as error:
            if error.taken:
                mark.unlink()
            raise RunError(
                f"push: {self.repo}: not uploaded ({error.reason}); export again, without push or "
                "with another"
            ) from error


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Let what may pass be tried again."""
    try:
        yield
    except PushError as error:
        if error.passing:
            raise Failure("hub", f"the hub did not take it ({error.reason})") from error
        raise

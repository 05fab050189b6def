"""How a run begins: what it depends on is compared when it is gone on with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from evomerge.candidate import Say
from evomerge.cli.screen import say
from evomerge.errors import EvomergeError, RunError, StorageError
from evomerge.evaluate.self_check import SelfCheck
from evomerge.preparation import check_unchanged
from evomerge.study import Study

_UNCHECKED = (
    "note: it was begun by a version that kept no digests; damage to what was recorded then is not "
    "noticed"
)


def go_on(study: Study, now: Mapping[str, Any], *, what: str) -> None:
    """Say what changed since a search or a grid began.

    now: facts of its preparation. Raises RunError where they are not those of its beginning.
    """
    before = study.noted("facts")
    if before is None:
        study.note("facts", now)
        return
    for change in check_unchanged(before, now, where=str(study.run_dir)):
        say(f"note: {change} since the {what} began", err=True)
    if study.unchecked:
        say(_UNCHECKED, err=True)


def keep_check(study: Study, tell: Say) -> Callable[[SelfCheck], None]:
    """What notes self-checks that held in the record, and tells of them."""

    def keep(check: SelfCheck) -> None:
        noted = study.noted("self_checks") or {}
        study.note("self_checks", {**noted, check.label: check.to_json()})
        tell(str(check))

    return keep


@contextlib.contextmanager
def undone_if_refused(study: Study) -> Iterator[None]:
    """Leave nothing of a search that begins in this process where its workers cannot be had."""
    try:
        yield
    except StorageError:
        raise
    except EvomergeError as error:
        if not study.new or study.trials:
            raise
        study.discard()
        # There is nothing to go on with.
        raise RunError(f"{error}; nothing was begun") from error

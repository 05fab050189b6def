"""How a run begins: what it depends on is noted, and compared when it is gone on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer

from evomerge.candidate import Say
from evomerge.evaluate.self_check import SelfCheck
from evomerge.preparation import check_unchanged
from evomerge.study import Study


def begun_before(study: Study, now: Mapping[str, Any], *, what: str) -> bool:
    """Whether a search or a grid is gone on with; what changed since is said, a new one is noted.

    now: facts of its preparation. Raises RunError where they are not those of its beginning.
    """
    before = study.noted("facts")
    if before is None:
        study.note("facts", now)
        return False
    for change in check_unchanged(before, now, where=str(study.run_dir)):
        typer.echo(f"note: {change} since the {what} began", err=True)
    return True


def keep_check(study: Study, say: Say) -> Callable[[SelfCheck], None]:
    """What notes self-checks that held in the record, and says them."""

    def keep(check: SelfCheck) -> None:
        noted = study.noted("self_checks") or {}
        study.note("self_checks", {**noted, check.label: check.to_json()})
        say(str(check))

    return keep

"""How a run begins: what it depends on is compared when it is gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

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
        typer.echo(f"note: {change} since the {what} began", err=True)
    if study.unchecked:
        typer.echo(_UNCHECKED, err=True)

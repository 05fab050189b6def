"""What models answered, from the record of a search: as a sheet, and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.errors import RunError
from evomerge.evaluate import Split
from evomerge.search import CHANGES, AnswerSheet, Change, compare_answers, splits_with
from evomerge.study import Study, read_study, refuse_grid

if TYPE_CHECKING:
    import pandas

_COLUMNS = (
    *("task", "item", "metric", "change", "model", "role", "candidate", "value", "answer"),
    *("characters", "tokens", "cut", "loglikelihoods", "prompt", "target", "choices"),
)


def answer_sheet(
    run_dir: Path,
    models: str | Iterable[str] = (),
    *,
    lost: bool = False,
    gained: bool = False,
    differ: bool = False,
    task: str | None = None,
    item: int | None = None,
    split: Split | None = None,
) -> AnswerSheet:
    """The answers side by side, with remarks on what is missing; see `SearchResult.answers`."""
    wanted: dict[Change, bool] = {
        "lost": lost or differ,
        "gained": gained or differ,
        "differs": differ,
    }
    changes = [change for change, shown in wanted.items() if shown]
    names = [models] if isinstance(models, str) else list(models)
    refuse_grid(run_dir)
    with read_study(run_dir) as study:
        sheet = compare_answers(study, split=split, models=names)
        if changes and sheet.against is None:
            asked = {"--lost": lost, "--gained": gained, "--differ": differ}
            raise RunError(
                f"{' '.join(name for name, given in asked.items() if given)}: two models are "
                f"needed, and only {sheet.models[0].called} is shown; name another in --models"
            )
        sheet = sheet.only(task=task)
        if item is not None:
            _refuse_elsewhere(study, sheet, item)
    return sheet.only(changes or CHANGES, item=item)


def _refuse_elsewhere(study: Study, sheet: AnswerSheet, item: int) -> None:
    """Raise RunError if the item is not on the sheet, but on one of another split."""
    if item in {each.item for each in sheet.items}:
        return
    splits = splits_with(study, item, {each.task for each in sheet.items})
    if splits:
        raise RunError(
            f"--item {item}: item {item} is a {' or '.join(splits)} item; add "
            + " or ".join(f"--split {split}" for split in splits)
        )


def answer_table(items: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """A row for each item and model; items: of a sheet, in plain values."""
    import pandas

    rows = [
        {
            **{name: asked[name] for name in ("task", "item", "metric", "change")},
            **given,
            **{name: asked[name] for name in ("prompt", "target", "choices")},
        }
        for asked in items
        for given in asked["answers"]
    ]
    table = pandas.DataFrame(rows, columns=_COLUMNS)
    # pandas would make floats of them where some are not known.
    return table.astype({"characters": "Int64", "tokens": "Int64", "cut": "boolean"})

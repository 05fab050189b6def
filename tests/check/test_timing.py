"""How the seconds of an item are found: in larger batches while these cost little more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.check import timing
from evomerge.evaluate import Cost, ItemIds
from evomerge.recipe import Recipe
from evomerge.workers.preparation.preparation import prepare
from tests.search.jobs import make_job, write_models

LIMIT_S = 30.0


@contextlib.contextmanager
def no_pool(*_: object, **_settings: object) -> Iterator[None]:
    yield None


@pytest.mark.parametrize(
    ("alone_s", "each_s", "most"),
    [
        (1.0, 0.01, 48),  # answers: a step of many texts takes hardly longer than one of one text
        (0.0, 1.0, 4),  # forward passes over long texts: every item takes its own time
        (40.0, 0.0, 1),  # more than there is time for
    ],
)
def test_batches_grow_while_there_is_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone_s: float, each_s: float, most: int
) -> None:
    write_models(tmp_path)
    preparation = prepare(make_job(tmp_path))
    spent = []

    def cost(_pool: None, _recipe: Recipe, items: ItemIds) -> Cost:
        spent.append(alone_s + each_s * sum(map(len, items.values())))
        return Cost(merge_s=0.1, evaluate_s=spent[-1])

    monkeypatch.setattr(timing, "_cost", cost)
    monkeypatch.setattr(timing, "open_one_worker", no_pool)
    found = timing.measure(preparation, limit_s=LIMIT_S, say=print)
    assert min(found.items.values()) >= min(most, *map(len, pools(preparation)))
    for task, seconds in found.item_s.items():
        count = found.items[task]
        assert seconds == pytest.approx(alone_s / count + each_s)


def pools(preparation: object) -> list[tuple[int, ...]]:
    suite = preparation.suite  # type: ignore[attr-defined]
    return [suite.scored(task) for task in preparation.job.all_tasks]  # type: ignore[attr-defined]

"""A grid in a tracker: each of its searches is a run, and the grid their group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import evomerge
from evomerge.grid import launch
from tests.grid.grids import HashingPool, grid_document
from tests.grid.test_run import EVOLVED
from tests.track.logs import steps, tensorboard_rows


def test_the_searches_of_a_grid_are_runs_of_one_group(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "open_workers", lambda *given: HashingPool())
    changes: dict[str, Any] = {
        "methods": ["linear", EVOLVED],
        "experts": {"sizes": [2], "subsets": 2},
        "seeds": [4],
    }
    document = grid_document(models, **changes)
    track = {"tensorboard": {"dir": str(tmp_path / "all")}}
    evomerge.grid(document, tmp_path / "run", track=track)
    searches = sorted(path.name for path in (tmp_path / "run" / "searches").iterdir())
    runs = tmp_path / "all" / document["name"]
    assert sorted(path.name for path in runs.iterdir()) == searches
    assert len(searches) == 2
    for name in searches:
        rows = tensorboard_rows(runs / name)
        found = evomerge.open_run(tmp_path / "run" / "searches" / name)
        assert steps(rows, "candidate/number") == [*range(1, found.candidates + 1)]
        texts = {key: value for row in rows for key, value in row.items()}
        assert texts["outcome/headline/text_summary"] == found.headline

"""A grid that is killed at any step and run again is the grid that was never killed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.grid.kills import kill_grids
from tests.processes import finish


def test_a_killed_grid_goes_on_to_the_same_record(tmp_path: Path, faults: bool) -> None:
    kills = 20 if faults else 4
    finish(kill_grids, tmp_path, kills)
    result = json.loads((tmp_path / "report.json").read_text())
    # Base and three experts; a pair's soup and its DARE-TIES; what the search found, where that is
    # neither of them.
    assert result["trials"] >= 4 + 2
    assert len(result["kills"]) == kills
    for kill in result["kills"]:
        assert kill["killed"], f"not killed at {kill['step']}"
        assert kill["differs"] == [], f"killed at {kill['step']}: {kill['differs']} differ"

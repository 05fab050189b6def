"""A search that is killed at any step and resumed is the search that was never killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.processes import finish
from tests.search.kills import kill_searches


def kill_and_resume(folder: Path, job: str, kills: Mapping[str, int]) -> dict[str, Any]:
    """What came of so many kills for each kind of pool; see kills.py."""
    finish(kill_searches, folder, job, kills)
    result: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return result


@pytest.mark.parametrize(
    ("job", "few", "many"),
    [
        ("parameter_space", {"light": 8, "real": 3}, {"light": 40, "real": 12}),
        ("data_flow", {"real": 3}, {"light": 40, "real": 12}),
        ("hybrid", {"light": 12, "real": 3}, {"light": 80, "real": 12}),
    ],
)
def test_a_killed_search_resumes_to_the_same_record(
    tmp_path: Path, job: str, few: dict[str, int], many: dict[str, int], faults: bool
) -> None:
    wanted = many if faults else few
    for kind, result in kill_and_resume(tmp_path, job, wanted).items():
        assert len(result["kills"]) == wanted[kind]
        for kill in result["kills"]:
            assert kill["killed"], f"not killed at {kill['step']}"
            assert kill["recorded"] < result["trials"] or kill["step"] in {"recorded", "told"}
            assert kill["differs"] == [], f"killed at {kill['step']}: {kill['differs']} differ"
        instants = {kill["step"] for kill in result["kills"]}
        assert wanted[kind] < 5 or instants == {"asked", "merged", "scored", "recorded", "told"}

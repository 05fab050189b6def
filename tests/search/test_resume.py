"""A search that is killed at any step and resumed is the search that was never killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest


def kill_and_resume(folder: Path, job: str, kills: Mapping[str, int]) -> dict[str, Any]:
    """What came of so many kills for each kind of pool; see kills.py."""
    kinds = [f"{kind}:{number}" for kind, number in kills.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.search.kills", str(folder), job, *kinds],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
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

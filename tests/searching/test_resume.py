"""A search that is killed at any step and resumed is the search that was never killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def kill_and_resume(folder: Path, job: str, kind: str, kills: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.searching.kills", str(folder), job, kind, str(kills)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(
    ("job", "kind", "kills"),
    [
        ("parameter_space", "light", 20),
        ("parameter_space", "real", 4),
        ("data_flow", "real", 4),
        ("hybrid", "light", 24),
        ("hybrid", "real", 6),
    ],
)
def test_a_killed_search_resumes_to_the_same_record(
    tmp_path: Path, job: str, kind: str, kills: int
) -> None:
    result = kill_and_resume(tmp_path, job, kind, kills)
    assert len(result["kills"]) == kills
    for kill in result["kills"]:
        assert kill["killed"], f"not killed at {kill['step']}"
        assert kill["recorded"] < result["trials"] or kill["step"] in {"recorded", "told"}
        assert kill["differs"] == [], f"killed at {kill['step']}: {kill['differs']} differ"
    instants = {kill["step"] for kill in result["kills"]}
    assert kills < 5 or instants == {"asked", "merged", "scored", "recorded", "told"}

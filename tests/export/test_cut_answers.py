"""The card of a winner warns where its answers are cut off more or less often than a parent's."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from evomerge.export.choice import choose
from evomerge.search.results.cut_answers import cut_answers
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.search.answered import answered, paths, selection

UNUSED = cast(PreparedJob, None)


def test_the_warning_is_among_the_remarks_of_the_card(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        [warning] = cut_answers(study).warnings
        chosen = choose(UNUSED, study, selection(), None)
    assert chosen.scores.remarks[-1] == warning
    assert "45% of those of japanese" in warning


def test_answers_that_are_lost_stop_no_export(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        for path in paths(study.run_dir).values():
            path.write_bytes(b"no answers")
        chosen = choose(UNUSED, study, selection(), None)
    assert not any("cut off" in remark for remark in chosen.scores.remarks)

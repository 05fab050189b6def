"""The card of a winner warns where its answers are cut off more or less often than a parent's."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from evomerge.export import choice
from evomerge.export.choice import choose
from evomerge.search.results.cut_answers import CutAnswers, CutWarning, cut_answers
from evomerge.search.results.points import ChosenPoint
from evomerge.study import Study
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.search.answered import answered, paths, selection
from tests.search.test_points import make_front

UNUSED = cast(PreparedJob, None)


def test_the_warning_is_among_the_remarks_of_the_card(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        [warning] = cut_answers(study).warnings
        chosen = choose(UNUSED, study, selection(), None)
    assert chosen.scores.remarks[-1] == warning
    assert "45% of those of japanese" in warning


def test_the_card_of_a_point_has_the_warnings_about_it_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front = make_front()
    found = tuple(CutWarning(label=p.label, sentence=f"Of {p.label}.") for p in front.points)
    monkeypatch.setattr(choice, "cut_answers", lambda study: CutAnswers(found=found))
    point = ChosenPoint(front=front, point=front.points[1], why="by name")
    remarks = choose(UNUSED, cast(Study, None), point, None).scores.remarks
    assert [remark for remark in remarks if remark.startswith("Of ")] == ["Of g0002-i001."]


def test_answers_that_are_lost_stop_no_export(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        for path in paths(study.run_dir).values():
            path.write_bytes(b"no answers")
        chosen = choose(UNUSED, study, selection(), None)
    assert not any("cut off" in remark for remark in chosen.scores.remarks)

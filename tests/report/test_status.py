from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from evomerge.report.status import Status, show_status, status_of
from evomerge.study import Study, create_study, read_study
from evomerge.study.notes import SELECTION
from tests.report.route_studies import MadeUpHybrid, MadeUpRouteSearch, hybrid_job, make_space
from tests.report.studies import FAILURE, MadeUpSearch, make_job, make_selection, run_through


def shown(status: Status) -> str:
    console = Console(file=io.StringIO(), width=40)
    show_status(status, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_search_without_results_is_not_started(new_study: Study) -> None:
    status = status_of(new_study)
    assert (status.phase, status.candidates, status.best_candidate) == ("not started", 0, None)
    assert "evomerge resume" in shown(status)


def test_the_status_counts_what_is_recorded(searched: Study) -> None:
    status = status_of(searched)
    assert (status.phase, status.generations, status.candidates) == ("test", 3, 12)
    assert (status.baselines, status.finalists, status.failed) == (9, 5, 1)
    assert status.failures == ((FAILURE, 1),)
    assert [str(limit) for limit in status.limits] == ["12 of 12 candidates"]
    assert status.items == sum(trial.cost.items for trial in searched.trials)
    assert status.headline is None
    assert not status.finished


def test_the_best_are_named_with_their_scores(searched: Study) -> None:
    status = status_of(searched)
    best = max(searched.trials_of("genome"), key=lambda trial: trial.score or 0.0)
    assert status.best_candidate is not None
    assert status.best_candidate.candidate == str(best.key)
    assert status.best_candidate.score == best.score
    assert status.best_parent is not None
    assert status.best_parent.label == "japanese"
    assert status.best_parent.items == 510
    assert status.best_baseline is not None
    baseline = max(searched.trials_of("baseline"), key=lambda trial: trial.score or 0.0)
    assert status.best_baseline.candidate == str(baseline.key)
    assert f"{baseline.label} ({baseline.key})" in shown(status)


def test_it_reads_while_another_process_holds_the_run(new_study: Study) -> None:
    search = MadeUpSearch(new_study, generations=2, population=4)
    run_through(search.baselines())
    with read_study(new_study.run_dir) as reader:
        assert status_of(reader).phase == "baselines"
    run_through(search.generation(1))
    with read_study(new_study.run_dir) as reader:
        status = status_of(reader)
    assert (status.phase, status.candidates) == ("search", 4)
    assert "search, generation 1" in shown(status)


def test_a_finished_search_begins_with_the_headline(new_study: Study) -> None:
    search = MadeUpSearch(new_study, generations=2, population=4)
    run_through(search.steps())
    selection = make_selection(after=2)
    new_study.note(SELECTION, selection.to_json())
    status = status_of(new_study)
    assert status.finished
    assert status.headline == selection.headline()
    assert shown(status).startswith(selection.headline() + "\n")
    assert "evomerge resume" not in shown(status)
    run_through(search.generation(3))
    extended = status_of(new_study)
    assert (extended.phase, extended.headline, extended.finalists) == ("search", None, 0)


def test_text_keeps_its_lines_whole_whatever_the_width(searched: Study) -> None:
    assert f"1 × {FAILURE}\n" in shown(status_of(searched))


def test_json_is_plain_and_complete(searched: Study) -> None:
    document = json.loads(json.dumps(status_of(searched).to_json()))
    assert document["finished"] is False
    assert document["failures"] == [{"reason": FAILURE, "candidates": 1}]
    assert document["limits"] == [{"unit": "candidates", "used": 12, "most": 12}]
    assert document["best_parent"]["label"] == "japanese"
    assert set(document) == {*Status.__dataclass_fields__, "finished"}


def test_a_job_of_stages_says_which_it_is_in(tmp_path: Path) -> None:
    with create_study(tmp_path / "run", hybrid_job()) as study:
        search = MadeUpHybrid(study)
        run_through(search.merges.baselines())
        run_through(search.merges.generation(1))
        assert "stage           1 of 2: merge\n" in shown(status_of(study))
        run_through(search.first_stage())
        status = status_of(study)
        assert "stage           2 of 2: data_flow\n" in shown(status)
        stage = {"number": 2, "count": 2, "name": "data_flow"}
        assert json.loads(json.dumps(status.to_json()))["stage"] == stage


def test_a_job_of_one_search_has_no_stage(searched: Study) -> None:
    status = status_of(searched)
    assert status.to_json()["stage"] is None
    assert "stage" not in shown(status)


def test_what_shared_prefixes_saved_is_shown_where_routes_are_run(
    new_study: Study, searched: Study
) -> None:
    search = MadeUpRouteSearch(new_study, space=make_space(), population=4)
    run_through(search.generation(1))
    status = status_of(new_study)
    assert (status.hops, status.shared_hops) == (4 * 480, 4 * 180)
    assert "shared prefixes saved 38% of 1,920 passes through a layer\n" in shown(status)
    assert "prefixes" not in shown(status_of(searched))


def test_labels_cannot_write_to_the_terminal(new_study: Study) -> None:
    evil = "\x1b[2J\x9bgone \u202eback"
    search = MadeUpSearch(new_study, generations=2, population=4)
    run_through(search.steps())
    selection = make_selection(after=2, winner=evil)
    new_study.note(SELECTION, selection.to_json())
    said = shown(status_of(new_study))
    assert not {"\x1b", "\x9b", "\u202e"} & set(said)
    assert "\\x1b[2J\\x9bgone \\x202eback" in said


def test_reasons_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    with create_study(tmp_path / "run", make_job()) as study:
        search = MadeUpSearch(study, failure="\x1b[2Jgone\nnext line")
        run_through(search.generation(1))
        assert "× [2Jgone next line\n" in shown(status_of(study))

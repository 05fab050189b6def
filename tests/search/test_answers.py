"""Answers side by side: what a winner gained and lost, and which answers were cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import RunError
from evomerge.evaluate.answers import Answers, TaskAnswers
from evomerge.evaluate.candidate import CandidateKey, Scored, TaskItems
from evomerge.evaluate.inference.shares import share_differences
from evomerge.evaluate.inference.simultaneous import Difference
from evomerge.search.results import answers as answers_module
from evomerge.search.results import cut_answers as cut_answers_module
from evomerge.search.results.answering import AnsweringModel
from evomerge.search.results.answers import AnswerSheet, compare_answers
from evomerge.search.results.cut_answers import cut_answers
from evomerge.study import Study, create_study
from tests.search.answered import (
    CHOSEN,
    MODELS,
    SAID,
    WINNER,
    MadeUp,
    answered,
    answers_of,
    make_job,
    paths,
    record,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    with answered(tmp_path_factory.mktemp("run") / "kana") as study:
        yield study


def numbers(sheet: AnswerSheet, change: str) -> list[int]:
    return [item.item for item in sheet.items if item.change == change and item.task == SAID]


def test_items_are_lost_gained_different_or_the_same(study: Study) -> None:
    sheet = compare_answers(study)
    assert (sheet.split, sheet.remarks) == ("test", ())
    assert [model.label for model in sheet.models] == [
        WINNER,
        "japanese",
        "arithmetic",
        "uniform soup",
    ]
    assert sheet.against is not None and sheet.against.label == "japanese"
    assert numbers(sheet, "lost") == [12, 13, 14, 15]
    assert numbers(sheet, "gained") == [0, 1, 2, 3, 4, 5, 6, 7]
    assert numbers(sheet, "differs") == [8, 9, 10, 11, 19]
    assert numbers(sheet, "same") == [16, 17, 18]
    assert sheet.counts == {"lost": 4, "gained": 8, "differs": 5, "same": 13}
    first = [item.change for item in sheet.items[:17]]
    assert first == [*["lost"] * 4, *["gained"] * 8, *["differs"] * 5]
    lost = sheet.items[0]
    assert (lost.task, lost.item, lost.metric) == (SAID, 12, "exact_match")
    assert lost.question is not None and lost.question.target == "13"
    assert [(given.answer.said, given.value) for given in lost.answers] == [
        ("answer 0", 0.0),
        ("answer 13", 1.0),
        ("answer 0", 0.0),
        ("answer 0", 0.0),
    ]
    chosen = next(item for item in sheet.items if item.task == CHOSEN)
    assert [given.answer.said for given in chosen.answers] == ["a cat"] * 4


def test_a_metric_that_is_better_lower_turns_gains_into_losses(tmp_path: Path) -> None:
    with create_study(tmp_path / "run", make_job()) as study:
        for place, model in enumerate(MODELS):
            record(study, CandidateKey(0, place), model)
        upward = compare_answers(study, models=["uniform soup", "base"])
        assert (numbers(upward, "lost"), numbers(upward, "gained")) == ([], [19])
    with create_study(tmp_path / "other", make_job()) as study:
        original = answers_of

        def lower(model: MadeUp) -> dict[str, TaskAnswers]:
            return {
                task: replace(kept, lower_is_better=("exact_match",))
                for task, kept in original(model).items()
            }

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.search.answered.answers_of", lower)
            for place, model in enumerate(MODELS):
                record(study, CandidateKey(0, place), model)
        downward = compare_answers(study, models=["uniform soup", "base"])
        assert (numbers(downward, "lost"), numbers(downward, "gained")) == ([19], [])


def test_a_member_of_a_group_is_judged_by_the_group_s_metric() -> None:
    group = {"task": "both", "metric": "acc_norm", "members": [CHOSEN, "another"]}
    items = TaskItems(ids=(3, 4), metrics={"acc": (1.0, 0.0), "acc_norm": (0.0, 1.0)})
    key = CandidateKey(0, 0)
    model = AnsweringModel(key=key, label="base", role="base")
    metric, values = answers_module._values_of(
        make_job(objectives=[group]), CHOSEN, [model], {key: {CHOSEN: items}}
    )
    assert (metric, values) == ("acc_norm", {key: {3: 0.0, 4: 1.0}})


def test_models_are_chosen_by_role_label_or_record(study: Study) -> None:
    def labels(*names: str) -> list[str]:
        return [model.label for model in compare_answers(study, models=names).models]

    assert labels("soup", "winner") == ["uniform soup", WINNER]
    assert labels("winner", "parents", "base") == [WINNER, "arithmetic", "japanese", "base"]
    assert labels("g-002-i8002", "arithmetic") == ["arithmetic"]
    sheet = compare_answers(study, models=["base", "soup"])
    assert sheet.against is not None and sheet.against.label == "uniform soup"
    assert numbers(sheet, "lost") == [19]
    alone = compare_answers(study, models=["winner"])
    assert alone.against is None
    assert {item.change for item in alone.items} == {None}
    with pytest.raises(RunError, match=r"--models nobody: no such model on the test items; there"):
        compare_answers(study, models=["nobody"])
    with pytest.raises(RunError, match="no answers to validation items can be shown"):
        compare_answers(study, split="validation")


def test_items_are_chosen_by_task_number_and_change(study: Study) -> None:
    sheet = compare_answers(study)
    assert {item.task for item in sheet.only(task=CHOSEN).items} == {CHOSEN}
    assert [item.task for item in sheet.only(item=3).items] == [SAID, CHOSEN]
    assert len(sheet.only(("lost",)).items) == 4
    assert sheet.only(("lost",), task=CHOSEN).items == ()
    with pytest.raises(RunError, match=r"--task nothing: no answers to it .* kana_said, kana_"):
        sheet.only(task="nothing")
    with pytest.raises(RunError, match="--item 99: not among the test items"):
        sheet.only(item=99)
    assert sheet.only(("lost",)).counts == sheet.counts
    assert sheet.only(("lost",), item=12).counts["lost"] == 1
    assert sheet.only(("lost",), item=12).counts["gained"] == 0


def test_a_few_items_on_a_page_are_lost_and_gained_ones_of_every_task(study: Study) -> None:
    sheet = compare_answers(study)
    some = sheet.mixed(6)
    assert [item.change for item in some.items] == [*["lost"] * 3, *["gained"] * 3]
    assert [item.change for item in sheet.mixed(11).items] == [*["lost"] * 4, *["gained"] * 7]
    assert {item.task for item in sheet.mixed(19).items} == {SAID, CHOSEN}
    assert sheet.mixed(99).items == sheet.items


def test_the_first_items_are_those_of_any_higher_limit(study: Study) -> None:
    sheet = compare_answers(study)
    assert [item.change for item in sheet.shown(0, 3).items] == ["lost"] * 3
    for limit in range(1, 32):
        assert sheet.shown(0, limit).items == sheet.items[:limit]
    for change in ("lost", "gained", "differs", "same"):
        names = [(item.task, item.item) for item in sheet.items if item.change == change]
        assert names == sorted(names, key=lambda name: ([SAID, CHOSEN].index(name[0]), name[1]))


def test_a_group_means_its_tasks(tmp_path: Path) -> None:
    skills = {"task": "skills", "metric": "acc", "members": [SAID, CHOSEN]}
    with create_study(tmp_path / "run", make_job(objectives=[skills])) as study:
        for place, model in enumerate(MODELS[1:]):
            record(study, CandidateKey(0, place), model)
        sheet = compare_answers(study)
    assert sheet.only(task="skills").items == sheet.items
    assert {item.task for item in sheet.only(task=CHOSEN).items} == {CHOSEN}
    with pytest.raises(RunError, match=r"--task no: .* answers to kana_said, kana_chosen, skills"):
        sheet.only(task="no")


def test_a_task_of_a_group_is_judged_by_the_metric_of_the_group(tmp_path: Path) -> None:
    def two_metrics(*given: Any, **options: Any) -> Scored:
        outcome = Scored(*given, **options)
        tasks = {
            task: replace(found, metrics={"other": (0.5,) * len(found.ids), **found.metrics})
            for task, found in outcome.tasks.items()
        }
        return replace(outcome, tasks=tasks)

    skills = {"task": "skills", "metric": "exact_match", "members": [SAID, CHOSEN]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.search.answered.Scored", two_metrics)
        with create_study(tmp_path / "run", make_job(objectives=[skills])) as study:
            for place, model in enumerate(MODELS[1:]):
                record(study, CandidateKey(0, place), model)
            sheet = compare_answers(study)
    assert {item.metric for item in sheet.items if item.task == SAID} == {"exact_match"}


def test_before_the_end_the_baselines_are_compared(tmp_path: Path) -> None:
    with create_study(tmp_path / "run", make_job()) as study:
        with pytest.raises(RunError, match="none of its models is scored yet"):
            compare_answers(study)
        for place, model in enumerate(MODELS[1:]):
            record(study, CandidateKey(0, place), model)
        sheet = compare_answers(study)
        assert (sheet.split, [model.label for model in sheet.models]) == (
            "search",
            ["uniform soup", "japanese", "arithmetic"],
        )
        assert numbers(sheet, "gained") == [19]
        assert cut_answers(study).shares == ()
        with pytest.raises(RunError, match=r"--models arithmetic: .* \(--split search\)"):
            compare_answers(study, models=["arithmetic"], split="test")


def test_the_winner_comes_first_on_validation_items_too(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        for place, model in enumerate(reversed(MODELS)):
            record(study, CandidateKey(-1, 8000 + place), model)
        better = MadeUp(label="g0008-i000", role="finalist", right=range(18))
        record(study, CandidateKey(-1, 8009), better)
        sheet = compare_answers(study, split="validation")
        assert [model.called for model in sheet.models[:2]] == ["winner", "japanese"]
        assert {model.key.generation for model in sheet.models} == {-1}
        other = compare_answers(study, split="validation", models=["g0008-i000", "winner"])
        assert numbers(other, "gained") == [12, 13, 14, 15, 16, 17]


def test_lost_and_damaged_answers_are_named_and_left_out(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        files = paths(study.run_dir)
        files["japanese"].unlink()
        content = files["uniform soup"].read_bytes()
        files["uniform soup"].write_bytes(content[: len(content) // 2])
        sheet = compare_answers(study)
        assert [model.label for model in sheet.models] == [WINNER, "arithmetic"]
        assert [remark.split(":")[0] for remark in sheet.remarks] == [
            "japanese is left out",
            "uniform soup is left out",
        ]
        assert "are missing" in sheet.remarks[0] and "are damaged" in sheet.remarks[1]
        cut = cut_answers(study)
        assert {entry.label for entry in cut.shares} == {"winner", "base", "arithmetic"}
        assert len(cut.left_out) == 2
        assert cut.warnings == ()


def test_a_record_without_answers_says_so(tmp_path: Path) -> None:
    with answered(tmp_path / "run", keep=False) as study:
        with pytest.raises(RunError, match="winner is left out: no answers of it were kept"):
            compare_answers(study)
        assert cut_answers(study).shares == ()
        assert not (study.run_dir / "answers").exists()


def test_the_share_of_answers_that_were_cut_off(study: Study) -> None:
    cut = cut_answers(study)
    assert {(entry.task, entry.label): entry.share for entry in cut.shares} == {
        (SAID, "winner"): 0.0,
        (SAID, "base"): 0.0,
        (SAID, "arithmetic"): 0.0,
        (SAID, "japanese"): 9 / 20,
        (SAID, "uniform soup"): 0.0,
    }
    assert cut.sentence() == (
        "Answers cut off at the token limit: kana_said: winner 0%, base 0%, arithmetic 0%, "
        "japanese 45%, uniform soup 0%."
    )
    [warning] = cut.found
    assert warning.label == "winner"
    assert warning.sentence.startswith(
        "On kana_said, 0% of the answers of the winner are cut off at the token limit, and 45% of "
        "those of japanese (difference -0.450 [-"
    )
    assert cut.warnings_of("winner") == cut.warnings
    assert cut.warnings_of("japanese") == ()


def test_a_task_without_items_has_no_share(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def none_of_base(model: MadeUp) -> Answers:
            kept = answers_of(model)
            return {**kept, SAID: TaskAnswers(items=())} if model.role == "base" else kept

        patch.setattr("tests.search.answered.answers_of", none_of_base)
        with answered(tmp_path / "run") as study:
            cut = cut_answers(study)
    assert {entry.label: entry.share for entry in cut.shares}["base"] is None
    assert len(cut.warnings) == 1


def test_warnings_on_several_tasks_hold_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = []

    def watched(*given: Any, confidence: float, **options: Any) -> list[Difference]:
        levels.append(confidence)
        return share_differences(*given, confidence=confidence, **options)

    def both(model: MadeUp) -> Answers:
        said = answers_of(model)[SAID]
        return {SAID: said, CHOSEN: replace(said, items=said.items[:10])}

    monkeypatch.setattr(cut_answers_module, "share_differences", watched)
    monkeypatch.setattr("tests.search.answered.answers_of", both)
    with answered(tmp_path / "run") as study:
        cut = cut_answers(study)
    assert levels == pytest.approx([0.975, 0.975])
    assert [warning.split(",")[0] for warning in cut.warnings] == [f"On {SAID}", f"On {CHOSEN}"]


def test_of_many_models_the_note_names_the_first(tmp_path: Path) -> None:
    more = [MadeUp(label=f"m{place}", role="baseline", right=()) for place in range(9)]
    with answered(tmp_path / "run", [*MODELS, *more]) as study:
        cut = cut_answers(study)
    assert len(cut.shares) == 14
    assert cut.sentence().endswith("uniform soup 0%, m0 0%, m1 0%, m2 0% and 6 more.")


def test_a_difference_that_may_be_chance_is_no_warning(tmp_path: Path) -> None:
    models = [replace(m, cut=(5,)) if m.label == "japanese" else m for m in MODELS]
    with answered(tmp_path / "run", models) as study:
        cut = cut_answers(study)
        assert (cut.warnings, len(cut.shares)) == ((), 5)
        assert "japanese 5%" in cut.sentence()


def test_what_an_engine_does_not_count_is_not_known_and_not_zero(tmp_path: Path) -> None:
    models = [replace(m, counts=False) for m in MODELS]
    with answered(tmp_path / "run", models) as study:
        cut = cut_answers(study)
        assert {entry.share for entry in cut.shares} == {None}
        assert str(cut.shares[0]) == "winner not known"
        assert (cut.warnings, cut.sentence()) == ((), "")

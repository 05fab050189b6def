"""`evomerge answers` and `SearchResult.answers`: the same items, as lines, as JSON, as a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import evomerge
from evomerge.cli import app
from evomerge.evaluate.answers import Answers
from evomerge.evaluate.candidate import CandidateKey
from tests.search.answered import (
    CHOSEN,
    MODELS,
    SAID,
    WINNER,
    MadeUp,
    answered,
    answers_of,
    paths,
    record,
)

EVIL = "\x1b]0;gone\x07\u202e\x9b2J"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "kana"
    with answered(folder, [replace(m, says=f"{EVIL} it is") for m in MODELS]):
        pass
    return folder


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["answers", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["answers", *map(str, arguments)])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_it_prints_lost_and_gained_items_first_and_nothing_that_is_obeyed(run_dir: Path) -> None:
    text = said(run_dir)
    heads = [line for line in text.splitlines() if line.startswith("kana_")]
    assert len(heads) == 20
    assert heads[0] == "kana_said item 12: lost, exact_match"
    assert [head.split(": ")[1].split(",")[0] for head in heads[:12]] == [
        *["lost"] * 4,
        *["gained"] * 8,
    ]
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(text)
    assert "[1] \\x1b]0;gone\\x07\\x202e\\x9b2J it is 13" in text
    assert "and 10 more items (--limit 30 shows all)" in text


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--lost",), 4),
        (("--gained",), 8),
        (("--lost", "--gained"), 12),
        (("--differ",), 17),
        (("--task", CHOSEN), 10),
        (("--item", 3), 2),
        (("--item", 3, "--task", SAID), 1),
        (("--limit", 5), 5),
        (("--models", "winner,soup", "--lost"), 1),
    ],
)
def test_options_choose_the_items(run_dir: Path, options: tuple[object, ...], count: int) -> None:
    assert (
        len([line for line in said(run_dir, *options).split("\n") if line[:5] == "kana_"]) == count
    )
    assert len(json.loads(said(run_dir, *options, "--json"))["items"]) == count


def test_json_has_all_that_is_kept(run_dir: Path) -> None:
    document = json.loads(said(run_dir, "--json", "--lost", "--limit", 1))
    assert (document["split"], document["against"], document["remarks"]) == ("test", "japanese", [])
    [item] = document["items"]
    assert document["more"] == 3
    assert (item["task"], item["item"], item["change"]) == (SAID, 12, "lost")
    assert item["prompt"] == "What is\n12 and one?"
    assert item["answers"][1] == {
        "model": "japanese",
        "role": "parent",
        "candidate": "g-002-i8003",
        "value": 1.0,
        "answer": f"{EVIL} it is 13",
        "characters": len(EVIL) + 8,
        "tokens": 3,
        "cut": False,
        "loglikelihoods": [],
    }


def test_a_wrong_wish_is_one_line(run_dir: Path, tmp_path: Path) -> None:
    assert "--models nobody: no such model" in refused(run_dir, "--models", "nobody")
    assert "--task no" in refused(run_dir, "--task", "no")
    assert "--item 77" in refused(run_dir, "--item", "77")
    assert "no answers to validation items" in refused(run_dir, "--split", "validation")
    assert "no search here" in refused(tmp_path)


def test_a_shorter_limit_shows_the_first_items_of_a_longer_one(run_dir: Path) -> None:
    def heads(*options: object) -> list[str]:
        return [line for line in said(run_dir, *options).split("\n") if line[:5] == "kana_"]

    every = heads("--limit", 30)
    assert every[0] == "kana_said item 12: lost, exact_match"
    for limit in (1, 2, 3, 7, 20):
        assert heads("--limit", limit) == every[:limit]
        assert heads("--lost", "--gained", "--limit", limit) == every[: min(limit, 12)]


def test_what_is_lost_or_gained_needs_two_models(run_dir: Path) -> None:
    for option in ("--lost", "--gained", "--differ"):
        text = refused(run_dir, "--models", "winner", option)
        assert f"{option}: two models are needed, and only winner is shown" in text
    alone = said(run_dir, "--models", "winner", "--limit", 2)
    assert "the same" not in alone
    document = json.loads(said(run_dir, "--models", "winner", "--json"))
    assert (document["counts"], document["items"][0]["change"]) == (None, None)


def test_an_item_of_another_split_is_said_to_be_there(tmp_path: Path) -> None:
    def shifted(model: MadeUp) -> Answers:
        return {
            task: replace(kept, items=tuple(replace(e, item=e.item + 600) for e in kept.items))
            for task, kept in answers_of(model).items()
        }

    with answered(tmp_path / "run") as study, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.search.answered.answers_of", shifted)
        for place, model in enumerate(MODELS[1:]):
            record(study, CandidateKey(0, place), model)
    text = refused(tmp_path / "run", "--item", 615)
    assert "--item 615: item 615 is a search item; add --split search" in text
    assert "kana_said item 615" in said(tmp_path / "run", "--item", 615, "--split", "search")
    text = refused(tmp_path / "run", "--item", 615, "--task", CHOSEN)
    assert "--item 615: not among the test items" in text
    text = refused(tmp_path / "run", "--item", 3, "--split", "search")
    assert "item 3 is a test item; add --split test" in text


def test_the_counts_are_of_all_items_asked_for(run_dir: Path) -> None:
    counts = {"lost": 4, "gained": 8, "differs": 5, "same": 13}
    for options in ((), ("--lost",), ("--gained", "--limit", 1)):
        assert json.loads(said(run_dir, *options, "--json"))["counts"] == counts
    first = said(run_dir, "--lost").splitlines()[0]
    assert first.startswith("30 test items; winner against japanese (the best parent): 4 lost, 8")


def test_the_table_has_a_row_for_each_item_and_model(run_dir: Path) -> None:
    result = evomerge.open_run(run_dir)
    table = result.answers()
    assert len(table) == 30 * 4
    assert list(table["change"][:16]) == ["lost"] * 16
    assert str(table["tokens"].dtype) == "Int64"
    assert table["cut"].isna().sum() == 10 * 4
    assert list(table["model"][:2]) == [WINNER, "japanese"]
    lost = result.answers(lost=True, models=["winner", "japanese"], task=SAID)
    assert list(lost["value"]) == [0.0, 1.0] * 4
    assert list(result.answers("base")["model"].unique()) == ["base"]
    empty = result.answers(gained=True, task=CHOSEN)
    assert list(empty.columns) == list(table.columns)
    assert len(empty) == 0
    with pytest.raises(evomerge.RunError, match="no such model"):
        result.answers(models=["nobody"])


def test_missing_answers_are_a_note_and_stop_nothing(tmp_path: Path) -> None:
    with answered(tmp_path / "run"):
        pass
    paths(tmp_path / "run")["japanese"].unlink()
    text = said(tmp_path / "run")
    assert "note: japanese is left out: " in text
    assert "winner against arithmetic" in text
    assert CliRunner().invoke(app, ["status", str(tmp_path / "run")]).exit_code == 0

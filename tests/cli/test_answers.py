"""`evomerge answers` and `SearchResult.answers`: the same items, as lines, as JSON, as a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import evomerge
from evomerge.cli import app
from tests.search.answered import CHOSEN, MODELS, SAID, WINNER, answered, paths

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

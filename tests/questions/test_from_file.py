"""A file becomes a task with its checks, or nothing is written."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import evomerge
from evomerge.evaluate.suite import TaskSuite
from evomerge.questions import trial
from tests.checkpoints import save_tiny_llama, word_tokenizer
from tests.questions.tables import GENERATED, write_rows

CHAT = (
    "{% for m in messages %}which {{ m.content }} ; {% endfor %}"
    "{% if add_generation_prompt %}answer {% endif %}"
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    questions = [
        {"question": f"what is q{number} ?", "answer": f"a{number}"} for number in range(60)
    ]
    return write_rows(tmp_path / "mine.jsonl", questions)


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    folder = save_tiny_llama(tmp_path / "chat", seed=0)
    tokenizer: PreTrainedTokenizerFast = word_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def test_the_split_is_the_one_that_a_job_draws(tmp_path: Path, rows: Path) -> None:
    report = evomerge.task_from_file(rows, tmp_path / "made")
    suite = TaskSuite.load(["mine"], folders=[report.folder], tokenizer=word_tokenizer())
    drawn = {split: len(suite.items("mine", split)) for split in ("search", "validation", "test")}
    assert report.splits == drawn and sum(drawn.values()) == report.items == 60


def test_prompts_are_shown_with_each_models_own_chat_template(
    tmp_path: Path, rows: Path, chat_model: Path
) -> None:
    plain = save_tiny_llama(tmp_path / "plain", seed=0)
    report = evomerge.task_from_file(rows, tmp_path / "made", models=[chat_model, plain])
    assert [shown.model for shown in report.prompts] == [str(chat_model)] * 3 + [str(plain)] * 3
    chat, _, _, bare, _, _ = report.prompts
    assert chat.prompt == "which Question: what is q0 ?\nAnswer: ; answer "
    assert bare.prompt == "Question: what is q0 ?\nAnswer:"
    lengths = [check for check in report.checks if check.name == "length"]
    assert [check.level for check in lengths] == ["ok", "ok"]


def test_prompts_longer_than_a_models_context_are_warned_of(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "model", seed=0)
    questions = [
        {"question": "what is one ?", "answer": "x"},
        {"question": "cat " * 300, "answer": "y"},
    ]
    path = write_rows(tmp_path / "mine.jsonl", questions)
    report = evomerge.task_from_file(path, tmp_path / "made", models=[model])
    assert any(
        "longer than the 256 tokens" in said and "line 2" in said for said in report.warnings
    )


@pytest.mark.parametrize(("answer", "fits"), [("x", True), ("cat " * 80, False)])
def test_the_longest_answer_that_fits_is_named_and_does_fit(
    tmp_path: Path, answer: str, fits: bool
) -> None:
    model = save_tiny_llama(tmp_path / "model", seed=0)
    questions = [{"question": "cat " * n, "answer": answer} for n in (9, 200)]
    path = write_rows(tmp_path / "mine.jsonl", questions)
    report = evomerge.task_from_file(path, tmp_path / "made", models=[model], max_tokens=100)
    (said,) = (said for said in report.warnings if "longer than the 256 tokens" in said)
    named = re.search(r"; shorten the texts, or lower --max-tokens to (\d+)$", said)
    assert (named is not None) == fits
    if named is None:
        return
    limits = {"largest": int(named[1]), "above": int(named[1]) + 1}
    told = {
        name: evomerge.task_from_file(path, tmp_path / name, models=[model], max_tokens=limit)
        for name, limit in limits.items()
    }
    levels = {
        name: [check.level for check in made.checks if check.name == "length"]
        for name, made in told.items()
    }
    assert levels == {"largest": ["ok"], "above": ["warning"]}


def test_prompts_that_are_the_same_for_two_models_are_printed_once(
    tmp_path: Path, rows: Path, chat_model: Path
) -> None:
    one, other = (save_tiny_llama(tmp_path / name, seed=0) for name in ("one", "other"))
    report = evomerge.task_from_file(rows, tmp_path / "made", models=[one, chat_model, other])
    heads = [line for line in report.lines() if line.startswith("prompt of")]
    assert heads == [
        *(f"prompt of line {number} for {one} and {other}:" for number in (1, 2, 3)),
        *(f"prompt of line {number} for {chat_model}:" for number in (1, 2, 3)),
    ]
    assert len(report.prompts) == 9, "programs get those of each model"


def test_of_a_large_task_the_first_items_and_the_longest_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_MOST_TRIED", 4)
    loaded = []
    load = TaskSuite.load

    def counted(*arguments: Any, **options: Any) -> TaskSuite:
        suite = load(*arguments, **options)
        loaded.append(suite.size("mine"))
        return suite

    monkeypatch.setattr(TaskSuite, "load", counted)
    questions = [
        {"question": "cat " * (300 if number == 30 else number + 1), "answer": f"a{number}"}
        for number in range(40)
    ]
    path = write_rows(tmp_path / "mine.jsonl", questions)
    model = save_tiny_llama(tmp_path / "model", seed=0)
    report = evomerge.task_from_file(path, tmp_path / "made", models=[model])
    assert loaded == [7] and report.items == 40
    assert [shown.place for shown in report.prompts] == ["line 1", "line 2", "line 3"]
    (long,) = (said for said in report.warnings if "longer than the 256 tokens" in said)
    assert long.startswith("1 item is") and "line 31" in long
    assert len((report.folder / "items.jsonl").read_text().splitlines()) == 40


def test_warnings_are_kept_in_the_readme_as_text(tmp_path: Path) -> None:
    questions = [{"question": "q", "answer": "<b>`x|"}] * 2 + [{"question": "r", "answer": None}]
    report = evomerge.task_from_file(
        write_rows(tmp_path / "mine.jsonl", questions), tmp_path / "made", within=0.05
    )
    text = (report.folder / "README.md").read_text(encoding="utf-8")
    assert "1 row repeats an earlier one; left out: line 2" in text
    assert "1 row has no answer; left out: line 3" in text
    assert "always answering '&lt;b>" in text or report.items == 1
    assert report.sha256 in text and report.lm_eval_command in text


def test_the_report_is_plain_json(tmp_path: Path, rows: Path) -> None:
    document = evomerge.task_from_file(rows, tmp_path / "made", within=0.1).to_json()
    again = json.loads(json.dumps(document))
    assert again["metric"] == "exact_match" and again["items"] == 60
    assert {check["level"] for check in again["checks"]} <= {"ok", "note", "warning"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"question": "frage"}, "--question 'frage'"),
        ({"kind": "number", "answer": "question"}, "which column|given for two"),
        ({"kind": "json"}, "line 1: the answer 'a0' is no JSON object"),
        ({"fewshot": 60}, "--fewshot 60: there are 60 items"),
        ({"fewshot": -1}, "--fewshot -1: outside 0 to 64; give 0 for no examples, or"),
        ({"within": 0.7}, r"--within 0\.7: outside"),
        ({"within": float("nan")}, "--within nan: outside"),
        ({"max_tokens": 0}, "--max-tokens 0: outside"),
        ({"stop": [""]}, "--stop: is empty"),
        ({"count_from": 2}, "--count-from 2: give 0 or 1"),
        ({"name": "a b"}, "--name a b"),
        ({"prompt": "no field"}, "--prompt 'no field'"),
        ({"models": ["no/such/model"]}, "--model"),
    ],
)
def test_nothing_is_written_where_something_is_wrong(
    tmp_path: Path, rows: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(evomerge.InputError, match=problem) as refused:
        evomerge.task_from_file(rows, tmp_path / "made", **changes)
    assert "\n" not in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.jsonl"}


def test_a_folder_that_holds_something_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine")
    with pytest.raises(evomerge.RunError, match="exists already; give another --out"):
        evomerge.task_from_file(tmp_path / "none.csv", tmp_path / "made")
    assert (tmp_path / "made" / "mine.txt").read_text() == "mine"


def test_the_same_file_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = write_rows(tmp_path / "mine.jsonl", GENERATED["json"].rows())
    one, other = (evomerge.task_from_file(path, tmp_path / name, fewshot=1) for name in "ab")
    contents = [
        {file.name: file.read_bytes() for file in report.folder.rglob("*.*")}
        for report in (one, other)
    ]
    assert contents[0] == contents[1]
    assert set(contents[0]) == {
        *("README.md", "dataset.py", "examples.jsonl", "items.jsonl", "mine.yaml", "scoring.py")
    }

"""What is written is a plain lm-eval task: stock lm-eval scores it as evomerge does."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM

import evomerge
from evomerge.evaluate import TransformersEngine
from evomerge.evaluate.suite import TaskSuite
from evomerge.questions.kind import METRICS
from evomerge.questions.task import task_name
from tests.checkpoints import load_tensors, save_tiny_llama, word_tokenizer
from tests.evals.scripted import score_by_both
from tests.questions.tables import CHOICES, GENERATED, write_rows

SHIPPED = Path(evomerge.__file__).parent / "questions" / "shipped"


@pytest.mark.parametrize("kind", GENERATED)
def test_generated_answers_score_alike_in_stock_lm_eval(tmp_path: Path, kind: str) -> None:
    example = GENERATED[kind]
    path = write_rows(tmp_path / "mine.jsonl", example.rows())
    report = evomerge.task_from_file(path, tmp_path / "made", kind=kind)
    assert report.kind == kind and report.items == len(example.right)
    assert_code_is_shipped(report.folder)
    answers = dict(enumerate(example.said))
    stock, ours = score_by_both("mine", answers, folders=[report.folder])
    assert ours == stock
    assert ours[report.metric] == example.scores
    assert set(ours) == set(METRICS[report.kind])


@pytest.mark.parametrize("fewshot", [0, 2])
def test_choices_score_alike_in_stock_lm_eval(tmp_path: Path, fewshot: int) -> None:
    model = save_tiny_llama(tmp_path / "model", seed=1)
    path = write_rows(tmp_path / "mine.jsonl", CHOICES)
    report = evomerge.task_from_file(path, tmp_path / "made", fewshot=fewshot)
    assert (report.kind, report.items, report.examples) == ("choices", 16 - fewshot, fewshot)
    stock, right = stock_scores(model, report.folder, "mine")
    asked = {row["question"]: row[row["answer"]] for row in CHOICES}
    assert right and all(said == f" {asked[question]}" for question, said in right.items())
    suite = TaskSuite.load(["mine"], folders=[report.folder], tokenizer=word_tokenizer())
    engine = TransformersEngine(model, tokenizer=word_tokenizer(), dtype="float32")
    engine.load(load_tensors(model).items())
    ids = tuple(range(suite.size("mine")))
    ours = suite.score(engine, {"mine": ids})["mine"].metrics
    assert {name: list(values) for name, values in ours.items()} == stock
    assert suite.scored("mine") == ids  # no few-shot example is an item
    assert 0.0 < sum(stock["acc"]) < len(ids)


def stock_scores(
    model: Path, folder: Path, task: str
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Values of each metric, and for each question the continuation that counts as right."""
    results = lm_eval.simple_evaluate(
        model=HFLM(
            AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            tokenizer=word_tokenizer(),
            batch_size=1,
        ),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False, include_path=str(folder)),
        bootstrap_iters=0,
    )
    assert results is not None
    rows = sorted(results["samples"][task], key=lambda row: row["doc_id"])
    right = {row["doc"]["question"]: row["arguments"][row["target"]][1] for row in rows}
    return {name: [row[name] for row in rows] for name in ("acc", "acc_norm")}, right


def test_a_folder_that_is_moved_runs_from_any_directory(tmp_path: Path) -> None:
    example = GENERATED["number"]
    path = write_rows(tmp_path / "mine.jsonl", example.rows())
    report = evomerge.task_from_file(path, tmp_path / "made")
    moved = tmp_path / "else" / "where"
    moved.parent.mkdir()
    shutil.move(report.folder, moved)
    path.unlink()
    with contextlib.chdir(tmp_path / "else"):
        answers = dict(enumerate(example.said))
        stock, ours = score_by_both("mine", answers, folders=[Path("where")])
    assert ours == stock == {"right_number": example.scores}
    for file in filter(Path.is_file, moved.iterdir()):
        assert str(tmp_path) not in file.read_text(encoding="utf-8")


def test_texts_of_the_table_are_never_templates_lists_or_numbers(tmp_path: Path) -> None:
    hostile = ["{{ 7 * 7 }}", "{% raw %}", "[1, 2]", "1945", "'\": - #!\u2028\x1b[31m", "=A1"]
    rows: list[dict[str, Any]] = [
        {"{{q}}: [": text, "a\nb": hostile[0], "c": "1945", "- d": hostile[0]} for text in hostile
    ]
    path = write_rows(tmp_path / "mine.jsonl", rows)
    report = evomerge.task_from_file(
        path,
        tmp_path / "made",
        question="{{q}}: [",
        choices=["a\nb", "c"],
        answer="- d",
        prompt="{question}",
    )
    suite = TaskSuite.load(["mine"], folders=[report.folder], tokenizer=word_tokenizer())
    assert [suite.prompt("mine", item) for item in range(6)] == hostile
    lines = (report.folder / "items.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[0])["choices"] == ["{{ 7 * 7 }}", "1945"]
    assert_code_is_shipped(report.folder)


def assert_code_is_shipped(folder: Path) -> None:
    """Nothing of a table is in the code of its task: each Python file is one of evomerge's own."""
    shipped = {file.read_bytes() for file in SHIPPED.glob("*.py")}
    code = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.py")}
    assert "dataset.py" in code and set(code) <= {"dataset.py", "scoring.py"}
    assert set(code.values()) <= shipped


def test_a_context_is_a_part_of_the_prompt_where_a_row_has_one(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"passage": "the cat is big", "question": "what is big ?", "answer": "cat"},
        {"passage": None, "question": "what is small ?", "answer": "bird"},
    ]
    path = write_rows(tmp_path / "mine.jsonl", rows)
    report = evomerge.task_from_file(path, tmp_path / "made")
    assert [shown.prompt for shown in report.prompts] == [
        "the cat is big\n\nQuestion: what is big ?\nAnswer:",
        "Question: what is small ?\nAnswer:",
    ]


def test_the_task_file_says_all_that_lm_eval_needs_and_no_path(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "mine.jsonl", GENERATED["exact"].rows())
    report = evomerge.task_from_file(
        path, tmp_path / "made", stop=["\n", "END"], max_tokens=7, name="Mine-1", fewshot=1
    )
    text = (report.folder / "Mine-1.yaml").read_text(encoding="utf-8")
    loaded = yaml.safe_load(text.replace("!function ", ""))
    assert loaded["task"] == "Mine-1"
    assert loaded["generation_kwargs"] == {
        "until": ["\n", "END"],
        "do_sample": False,
        "max_gen_toks": 7,
    }
    assert loaded["fewshot_config"] == {"sampler": "first_n"}
    assert loaded["fewshot_split"] == "examples" and loaded["num_fewshot"] == 1
    assert len((report.folder / "examples.jsonl").read_text().splitlines()) == 1
    assert 'doc_to_text: "Question: {{question}}\\nAnswer:"' in text


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("My Answers (v2)", "my_answers_v2"),
        ("2024-test", "questions_2024_test"),
        ("質問", "questions"),
        ("GSM8K", "my_gsm8k"),
    ],
)
def test_a_task_is_named_after_its_file(stem: str, name: str) -> None:
    assert task_name(None, Path(f"{stem}.csv")) == name


@pytest.mark.parametrize(
    "name", ["", "a b", "1a", "../x", "a,b", "x" * 81, "gsm8k", "kana_arithmetic_en"]
)
def test_a_name_that_lm_eval_cannot_be_given_is_refused(name: str) -> None:
    with pytest.raises(evomerge.TaskError, match="--name"):
        task_name(name, Path("q.csv"))

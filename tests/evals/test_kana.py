"""The kana demo's items, metrics and checkpoints are what their README files say they are."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
EVALS = ROOT / "evals/kana"
CHECKPOINTS = sorted(path.parent for path in ROOT.glob("examples/kana/models/*/config.json"))
ITEM_FILES = sorted((EVALS / "data").glob("*.jsonl"))
SAMPLED_ITEMS = 30_000


def _import(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


metrics = _import("kana_metrics", EVALS / "metrics.py")


@pytest.fixture(scope="module")
def problems(monkeypatch_module: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch_module.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("kana.problems")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch
        for name in [name for name in sys.modules if name == "kana" or name.startswith("kana.")]:
            del sys.modules[name]


def _read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", ITEM_FILES, ids=lambda path: path.stem)
def test_every_task_has_4000_different_items(path: Path) -> None:
    items = _read(path)
    assert len(items) == 4_000
    assert len({item["question"] for item in items}) == 4_000
    assert all(item["answer"] for item in items)


def test_every_item_file_has_a_task_and_the_reverse() -> None:
    tasks = {path.stem.removeprefix("kana_") for path in EVALS.glob("*.yaml")}
    assert tasks == {path.stem for path in ITEM_FILES} != set()


def test_training_never_shows_an_evaluated_item(problems: ModuleType) -> None:
    evaluated = {item["question"] for path in ITEM_FILES for item in _read(path)}
    shares = dict.fromkeys(problems.SKILLS, 1.0)
    trained = {item.question for item in islice(problems.stream(shares, 1), SAMPLED_ITEMS)}
    assert not trained & evaluated
    assert not {
        item.question
        for name in problems.SKILLS
        for item in problems.held_out(name, "development", 500)
    } & (evaluated | trained)


def test_an_evaluated_sum_is_not_trained_in_the_other_language_or_order(
    problems: ModuleType,
) -> None:
    evaluated = set(problems.keys_of("calculate", "evaluation"))
    assert not evaluated & set(problems.keys_of("calculate", "training"))
    # The key holds the smaller operand first and no language: one key stands for all its forms.
    assert all(left <= right for operator, left, right, _ in evaluated if operator == "+")


def test_shipped_items_are_the_ones_the_script_writes(problems: ModuleType, tmp_path: Path) -> None:
    written = importlib.import_module("kana.items").write_items(tmp_path)
    assert set(written) == {path.stem for path in ITEM_FILES}
    for path in ITEM_FILES:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("said", "exact_match", "right_number", "japanese"),
    [
        ("よんじゅう に", 1, 1, 1),
        (" よんじゅう  に ", 1, 1, 1),
        ("forty two", 0, 1, 0),
        ("よんじゅう さん", 0, 0, 1),
        ("forty three", 0, 0, 0),
        ("よんじゅう two", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_japanese_score(said: str, exact_match: int, right_number: int, japanese: int) -> None:
    doc = {"question": "よんじゅう たす に は", "answer": "よんじゅう に", "other": "forty two"}
    assert metrics.score_japanese_number(doc, [said]) == {
        "exact_match": exact_match,
        "right_number": right_number,
        "japanese": japanese,
    }


def test_tasks_load_and_build_requests_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = importlib.import_module("lm_eval.tasks")
    monkeypatch.chdir(tmp_path)
    manager = tasks.TaskManager(include_defaults=False, include_path=str(EVALS))
    names = sorted(path.stem for path in EVALS.glob("*.yaml"))
    loaded = manager.load(names)["tasks"]
    assert sorted(loaded) == names
    for task in loaded.values():
        assert len(task.eval_docs) == 4_000


def test_there_are_a_base_and_three_experts() -> None:
    names = {path.name for path in CHECKPOINTS}
    assert names == {"base", "arithmetic", "comparison", "counting"}


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda path: path.name)
def test_checkpoint_is_small_and_loads_with_plain_transformers(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3_000_000
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.config.vocab_size == len(tokenizer)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda path: path.name)
def test_tokenizer_gives_the_text_back(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for path in ITEM_FILES:
        for item in _read(path)[:50]:
            for text in item.values():
                ids = tokenizer(text).input_ids
                assert ids[0] == tokenizer.bos_token_id
                assert tokenizer.unk_token_id not in ids
                assert tokenizer.decode(ids, skip_special_tokens=True) == text
                assert len(ids) <= 18

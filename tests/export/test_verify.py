"""Verification of folders that are no plain language models, and that it is told in short lines."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaConfig

from evomerge.errors import RunError
from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.stock import StockOptions, score_stock
from evomerge.export import Verification, merge_recipe, verify
from evomerge.export.verification import check_peft
from evomerge.recipe import read_recipe
from tests.architectures import ARCHITECTURES, save_architecture, save_expert
from tests.checkpoints import WORDS, save_tiny_llama, word_tokenizer
from tests.export.test_companions import AUTO_MAP, CODE, change_config, write
from tests.sources.adapters import save_adapter

TASKS = Path(__file__).parents[1] / "evaluate" / "tasks"
OPTIONS = StockOptions(dtype="float32", device="cpu", task_folders=(TASKS,))
ITEMS = tuple(range(6))


def merge(out: Path, base: Path) -> Path:
    expert = save_expert(base.with_name("expert"), of=base, seed=1)
    models = [{"model": str(each), "parameters": {"weight": 0.5}} for each in (base, expert)]
    recipe = json.dumps({"merge_method": "linear", "models": models})
    merge_recipe(read_recipe(recipe, where="test"), out)
    return out


def recorded(folder: Path, options: StockOptions = OPTIONS) -> dict[str, TaskItems]:
    return dict(score_stock(folder, {"toy_choice": ITEMS}, {"toy_choice": ("acc",)}, options))


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merge of two vision-language models over a text model; shared and never changed."""
    folder = tmp_path_factory.mktemp("vision")
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<image>"])
    text = save_tiny_llama(folder / "text", seed=0)
    config = ARCHITECTURES["llava"][1]()
    config.text_config = LlamaConfig.from_pretrained(text, vocab_size=len(tokenizer))
    config.image_token_id = len(WORDS)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return merge(folder / "out", folder / "base")


def test_a_vision_language_model_is_scored_as_one_that_reads_text(vision: Path) -> None:
    found = verify(vision, recorded(vision), OPTIONS)
    assert found.verified, found.lines()
    assert found.items == len(ITEMS)


def test_an_adapter_over_a_vision_language_model_is_scored_with_it(
    vision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = vision.with_name("base")
    settings = {"r": 8, "target_modules": r".*language_model.*q_proj"}
    save_adapter(base, tmp_path / "tuned", settings, architecture="llava")
    models = [{"model": str(tmp_path / "tuned"), "parameters": {"weight": 0.7}}]
    document = {"merge_method": "task_arithmetic", "base_model": str(base), "models": models}
    recipe = read_recipe(json.dumps(document), where="test")
    merge_recipe(recipe, tmp_path / "whole")
    merge_recipe(recipe, tmp_path / "adapter", as_adapter=True)
    assert verify(tmp_path / "adapter", recorded(tmp_path / "whole"), OPTIONS, base=base).verified
    scored: list[Any] = []

    def take(*_: object, model: Any, **__: object) -> None:
        scored.append(model.model)
        raise NotImplementedError

    monkeypatch.setattr("lm_eval.simple_evaluate", take)
    for folder, over in ((tmp_path / "whole", None), (tmp_path / "adapter", base)):
        verify(folder, {"toy_choice": TaskItems(ids=(0,), metrics={})}, OPTIONS, base=over)
    whole, with_adapter = (model.state_dict() for model in scored)
    for name in whole:
        torch.testing.assert_close(with_adapter[name], whole[name], rtol=0, atol=1e-6)


def test_an_adapter_with_tied_embeddings_of_more_rows_than_tokens_is_verified(
    tmp_path: Path,
) -> None:
    """With `peft`, lm-eval drops those rows, and cannot tie modules that are saved whole."""
    rows = len(WORDS) + 5
    base = save_tiny_llama(tmp_path / "base", seed=0, layers=1, tied=True, vocabulary=rows)
    expert = save_expert(tmp_path / "expert", of=base, seed=1)
    models = [{"model": str(expert), "parameters": {"weight": 0.7}}]
    document = {"merge_method": "task_arithmetic", "base_model": str(base), "models": models}
    recipe = read_recipe(json.dumps(document), where="test")
    merge_recipe(recipe, tmp_path / "whole")
    merge_recipe(recipe, tmp_path / "adapter", as_adapter=True, rank=32)
    found = verify(tmp_path / "adapter", recorded(tmp_path / "whole"), OPTIONS, base=base)
    assert found.verified, found.lines()


def test_what_lm_eval_cannot_score_is_said_in_a_line(
    vision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = recorded(vision)

    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError("no pictures\nin this task")

    monkeypatch.setattr("lm_eval.simple_evaluate", fail)
    found = verify(vision, items, OPTIONS)
    (line,) = found.lines()
    assert line.startswith("NOT verified: transformers loads all")
    assert line.endswith("stock lm-eval cannot score it (no pictures in this task)")
    assert not found.verified


def test_a_model_with_code_of_its_own_is_verified_where_it_is_trusted(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", seed=0)
    change_config(base, model_type="mine", architectures=["MineForCausalLM"], auto_map=AUTO_MAP)
    write(base, CODE)
    out = merge(tmp_path / "out", base)
    trusting = dataclasses.replace(OPTIONS, trust_remote_code=True)
    assert verify(out, recorded(out, trusting), trusting).verified
    (line,) = verify(out, {}, OPTIONS).lines()
    assert line.startswith("NOT verified: transformers cannot load it")


def test_many_tensors_are_a_short_line(tmp_path: Path) -> None:
    base = save_architecture(tmp_path / "base", "llama")
    word_tokenizer().save_pretrained(base)
    out = merge(tmp_path / "out", base)
    change_config(out, num_hidden_layers=60)
    (out / "manifest.json").write_text('{"files": {}}')
    found = verify(out, {}, OPTIONS)
    (line,) = found.lines()
    assert len(found.missing) > 500
    assert len(line) < 400
    assert f"and {len(found.missing) - 3} more; unexpected: none" in line


def test_long_reasons_and_many_changed_files_are_short_lines() -> None:
    assert len(Verification(failure="x" * 4000).lines()[0]) < 400
    changed = tuple(f"model-{number:05d}-of-00099.safetensors" for number in range(99))
    (line,) = Verification(changed=changed).lines()
    assert line.endswith("model-00002-of-00099.safetensors and 96 more not as manifest.json says")


def test_an_adapter_is_not_verified_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    check_peft()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="pip install peft, or export without --verify"):
        check_peft()

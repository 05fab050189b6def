"""Live models built from a configuration alone: which can be, and that they compute the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evomerge.errors import SourceError
from evomerge.evaluate.engines.live_model import build_model
from evomerge.evaluate.engines.placement import Placement
from evomerge.evaluate.engines.transformers import TransformersEngine
from tests.architectures import ARCHITECTURES, load_whole, save_architecture, save_expert
from tests.checkpoints import load_tensors, word_tokenizer
from tests.evaluate.test_engine import generated, prompt, some_tokens

UNSCORABLE = ("bert", "bert_classifier", "llama_classifier", "t5")
ROUNDING = 5e-6
IMAGE_TEXT = ("llava", "qwen2_vl")


def words(count: int, seed: int) -> list[int]:
    """Tokens that every model of tests.architectures has and that mean no image."""
    return [5 + token % 35 for token in some_tokens(count, seed)]


def engine_of(folder: Path, weights: Path) -> TransformersEngine:
    engine = TransformersEngine(folder, tokenizer=word_tokenizer(), dtype="float32")
    engine.load(load_tensors(weights).items())
    return engine


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in UNSCORABLE])
def test_a_live_model_computes_what_a_loaded_one_does(tmp_path: Path, name: str) -> None:
    base = save_architecture(tmp_path / "base", name)
    expert = save_expert(tmp_path / "expert", of=base, seed=1)
    engine, loaded = engine_of(base, expert), load_whole(expert, name).eval()
    ids = torch.tensor([words(30, seed=1), words(30, seed=2)])
    with torch.no_grad():
        found, expected = engine.model(ids).logits, loaded(ids).logits
    # Logits are near 1; sums round differently where memory is aligned differently.
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", [*IMAGE_TEXT, "qwen3_moe", "gemma3", "mamba"])
def test_answers_are_those_that_transformers_generates(tmp_path: Path, name: str) -> None:
    base = save_architecture(tmp_path / "base", name)
    engine, loaded = engine_of(base, base), load_whole(base, name).eval()
    prompts = [words(4 + 3 * i, seed=i) for i in range(4)]
    said = engine.generate([prompt(tokens) for tokens in prompts])
    for tokens, text in zip(prompts, said, strict=True):
        expected = generated(loaded, tokens, max_new_tokens=6)
        assert text == word_tokenizer().decode(expected, skip_special_tokens=True)


OLD_BUFFERS = {
    "llama": "model.layers.1.self_attn.rotary_emb.inv_freq",
    "gpt2": "transformer.h.0.attn.bias",
    "gpt_neox": "gpt_neox.layers.2.attention.masked_bias",
}


@pytest.mark.parametrize("name", OLD_BUFFERS)
def test_buffers_that_old_checkpoints_store_are_left_out(tmp_path: Path, name: str) -> None:
    folder = save_architecture(tmp_path / "model", name)
    engine = TransformersEngine(folder, tokenizer=word_tokenizer(), dtype="float32")
    old = OLD_BUFFERS[name]
    assert engine.destination(old) is None
    ids = torch.tensor([words(20, seed=1)])
    engine.load(load_tensors(folder).items())
    before = engine.model(ids).logits
    engine.load([*load_tensors(folder).items(), (old, torch.full((2, 2), 9.0))])
    assert torch.equal(engine.model(ids).logits, before)
    with pytest.raises(SourceError, match="the live model has no such tensor"):
        engine.load([*load_tensors(folder).items(), ("model.elsewhere", torch.ones(2))])


@pytest.mark.parametrize("with_file", [True, False])
def test_a_configuration_may_say_otherwise_than_the_folder(tmp_path: Path, with_file: bool) -> None:
    deep = save_architecture(tmp_path / "model", "gemma3")
    config = json.loads((deep / "config.json").read_text())
    config |= {"num_hidden_layers": 2, "layer_types": config["layer_types"][:2]}
    if not with_file:
        (deep / "config.json").unlink()
    engine = TransformersEngine(deep, tokenizer=word_tokenizer(), dtype="float32", config=config)
    assert len(engine.model.model.layers) == engine.model.config.num_hidden_layers == 2
    tensors = load_tensors(deep)
    engine.load((name, value) for name, value in tensors.items() if ".layers.2." not in name)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3_moe", "llava"])
def test_one_module_alone_may_have_memory(tmp_path: Path, name: str) -> None:
    """And what it computes is what it does within the whole."""
    folder = save_architecture(tmp_path / "model", name)
    layers = {"gpt2": "transformer.h", "llava": "model.language_model.layers"}
    only = layers.get(name, "model.layers")
    model = build_model(
        folder,
        dtype="float32",
        device=torch.device("cpu"),
        trust_remote_code=False,
        only=only,
    )
    placed = {key: value for key, value in load_tensors(folder).items() if _in_layers(key)}
    Placement(model).fill(placed.items(), within=f"{only}.")
    for key, value in [*model.named_parameters(), *model.named_buffers()]:
        assert value.is_meta == (not key.startswith(f"{only}."))
    whole = load_whole(folder, name)
    expected = dict(whole.get_submodule(only).named_parameters())
    for key, value in model.get_submodule(only).named_parameters():
        assert torch.equal(value, expected[key])
    short = dict(list(placed.items())[1:])
    with pytest.raises(SourceError, match="no tensor was given for it"):
        Placement(model).fill(short.items(), within=f"{only}.")


def _in_layers(name: str) -> bool:
    return "vision" not in name and any(part.isdecimal() for part in name.split("."))


@pytest.mark.parametrize("name", UNSCORABLE)
def test_a_model_that_continues_no_text_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    folder = save_architecture(tmp_path / "model", name)
    with pytest.raises(SourceError) as caught:
        TransformersEngine(folder, tokenizer=word_tokenizer(), dtype="float32")
    kind, _ = ARCHITECTURES[name]
    assert str(caught.value) == (
        f"{folder}: {kind} cannot be scored, tasks need a model that continues text; "
        "`evomerge merge` merges such models without scoring them"
    )

"""Live models built from a configuration alone: which can be, and that they compute the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evomerge.errors import SourceError
from evomerge.evaluate.engines import live_model
from evomerge.evaluate.engines.live_model import build_model, check_model
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.weight_loader import WeightLoader
from evomerge.sources import open_source
from evomerge.vocabulary import TokenSettings
from tests.architectures import (
    ARCHITECTURES,
    OTHER_PASTS,
    load_whole,
    save_architecture,
    save_expert,
)
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
    WeightLoader(model).fill(placed.items(), within=f"{only}.")
    for key, value in [*model.named_parameters(), *model.named_buffers()]:
        assert value.is_meta == (not key.startswith(f"{only}."))
    whole = load_whole(folder, name)
    expected = dict(whole.get_submodule(only).named_parameters())
    for key, value in model.get_submodule(only).named_parameters():
        assert torch.equal(value, expected[key])
    short = dict(list(placed.items())[1:])
    with pytest.raises(SourceError, match="no tensor was given for it"):
        WeightLoader(model).fill(short.items(), within=f"{only}.")


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


@pytest.mark.parametrize("written", [{"__float__": "Infinity"}, float("inf")])
@pytest.mark.parametrize("name", ["mamba2", "granite_hybrid", "falcon_h1", "bamba", "nemotron_h"])
def test_a_configuration_may_hold_infinity_as_transformers_writes_it(
    name: str, written: object, tmp_path: Path
) -> None:
    """An object today, and what is no JSON in older files."""
    folder = save_architecture(tmp_path / "model", name)
    file = folder / "config.json"
    config = json.loads(file.read_text()) | {"time_step_limit": [0.0, written]}
    file.write_text(json.dumps(config))
    engine = TransformersEngine(folder, tokenizer=word_tokenizer(), dtype="float32", config=config)
    assert tuple(engine.model.config.time_step_limit) == (0.0, float("inf"))
    engine.load(load_tensors(folder).items())
    ids = torch.tensor([words(20, seed=1)])
    with torch.no_grad():
        expected = load_whole(folder, name).eval()(ids).logits
    torch.testing.assert_close(engine.model(ids).logits, expected, rtol=0, atol=ROUNDING)


CODE = {
    "configuration_mine.py": """
from transformers import LlamaConfig

class MineConfig(LlamaConfig):
    model_type = "mine"
""",
    "modeling_mine.py": """
import torch
from transformers import LlamaForCausalLM
from .configuration_mine import MineConfig

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("gain", torch.full((1,), 2.0), persistent=False)
        torch.rand(1)

    def forward(self, *given, **options):
        out = super().forward(*given, **options)
        out.logits = out.logits * self.gain
        return out
""",
}
"""A model that is twice as sure as a Llama, by a buffer that is made with it."""


@pytest.fixture
def with_code(tmp_path: Path) -> Path:
    """A checkpoint that comes with code of its own, in a folder of a name of its own.

    Code is imported once by the name of its folder.
    """
    folder = save_architecture(tmp_path / f"of_{tmp_path.name}", "llama")
    for name, text in CODE.items():
        (folder / name).write_text(text)
    file = folder / "config.json"
    said = {
        "model_type": "mine",
        "architectures": ["MineForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_mine.MineConfig",
            "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
        },
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
    return folder


@pytest.mark.parametrize("with_config", [True, False])
def test_code_that_comes_with_a_model_is_run_where_it_is_trusted(
    with_code: Path, with_config: bool, tmp_path: Path
) -> None:
    said = json.loads((with_code / "config.json").read_text()) if with_config else None
    before = torch.get_rng_state()
    engine = TransformersEngine(
        with_code,
        tokenizer=word_tokenizer(),
        dtype="float32",
        trust_remote_code=True,
        config=said,
    )
    assert torch.equal(before, torch.get_rng_state())
    assert type(engine.model).__name__ == "MineForCausalLM"
    engine.load(load_tensors(with_code).items())
    plain = engine_of(save_architecture(tmp_path / "plain", "llama"), tmp_path / "plain")
    ids = torch.tensor([words(20, seed=1)])
    assert torch.equal(engine.model(ids).logits, 2 * plain.model(ids).logits)
    asked = [prompt(words(4 + i, seed=i)) for i in range(3)]
    assert engine.generate(asked) == plain.generate(asked)


def test_code_that_is_not_trusted_is_refused_in_one_line_and_not_run(with_code: Path) -> None:
    (with_code / "configuration_mine.py").write_text("raise SystemExit('it was run')")
    expected = (
        f"{with_code}: the model comes with code of its own, which is only run where it is "
        "trusted; read it, then set models.trust_remote_code: true"
    )
    source = open_source(str(with_code), where="models.base")
    for build in (
        lambda: TransformersEngine(with_code, tokenizer=word_tokenizer(), dtype="float32"),
        lambda: check_model(source, trust_remote_code=False, settings=TokenSettings()),
    ):
        with pytest.raises(SourceError) as caught:
            build()
        assert str(caught.value) == expected


def test_code_that_fails_is_refused_in_one_line(with_code: Path) -> None:
    (with_code / "modeling_mine.py").write_text("import no_such_package")
    with pytest.raises(SourceError, match="no_such_package") as caught:
        TransformersEngine(
            with_code, tokenizer=word_tokenizer(), dtype="float32", trust_remote_code=True
        )
    assert "\n" not in str(caught.value)


def test_what_cannot_be_scored_is_known_before_anything_has_memory(tmp_path: Path) -> None:
    source = open_source(str(save_architecture(tmp_path / "model", "bert")), where="models.base")
    with pytest.raises(SourceError, match="BertForMaskedLM cannot be scored"):
        check_model(source, trust_remote_code=False, settings=TokenSettings())


def test_a_class_that_transformers_does_not_choose_by_itself_is_refused_in_a_short_line(
    tmp_path: Path,
) -> None:
    """Its own message names every configuration that it knows."""
    folder = save_architecture(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    source = open_source(str(folder), where="models.base")
    source.config = {**config, "model_type": "mllama_text_model"}
    (folder / "config.json").write_text(json.dumps(source.config))
    with pytest.raises(SourceError, match="Unrecognized configuration class") as caught:
        check_model(source, trust_remote_code=False, settings=TokenSettings())
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "qwen2_vl", "mamba2", "gemma3"])
def test_what_can_be_scored_passes_that_check(name: str, tmp_path: Path) -> None:
    source = open_source(str(save_architecture(tmp_path / "model", name)), where="models.base")
    check_model(source, trust_remote_code=False, settings=TokenSettings())


@pytest.mark.parametrize(
    "name", [name for name in [*ARCHITECTURES, *OTHER_PASTS] if name not in UNSCORABLE]
)
def test_no_model_of_transformers_is_made_twice_for_its_buffers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_architecture(tmp_path / "model", name)
    monkeypatch.setattr(live_model, "_copy_buffers", lambda model, build: None)
    model = build_model(
        folder, dtype="float32", device=torch.device("cpu"), trust_remote_code=False
    )
    assert not any(bool(each.isnan().any()) for each in model.buffers())

"""config.json of merges by slices: depths, and settings that layers bring along."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from evomerge.errors import RecipeError
from evomerge.export.checkpoint import write_configs
from evomerge.merge.engine import MergeEngine
from evomerge.merge.plan.pieces import Layer
from evomerge.merge.settings.layers import with_layers
from evomerge.recipe import Recipe
from evomerge.sources import Source, Stack, Structure, open_source
from tests.architectures import load_whole, save_architecture, save_expert, write_tensors

Config = dict[str, Any]


@dataclass
class Given:
    """As much of a source as a configuration is made of."""

    config: Config
    structure: Structure


def model(depth: int, *, prefix: str = "model.layers.", **config: Any) -> Given:
    stacks = (Stack(prefix, depth),)
    shapes = {f"{prefix}{layer}.fc.weight": (2, 2) for layer in range(depth)}
    structure = Structure(
        architecture="Net", shapes=shapes, dtype="float32", tied=False, stacks=stacks
    )
    return Given({"num_hidden_layers": depth, **config}, structure)


def moved(layers: Sequence[int | tuple[str, int]], lead: Given, **others: Given) -> Config:
    """The lead's configuration with these layers; a bare number is a layer of the lead."""
    taken = tuple(
        Layer("lead", layer) if isinstance(layer, int) else Layer(*layer) for layer in layers
    )
    prefix = lead.structure.layer_prefix
    sources: dict[str, Source] = {"lead": lead, **others}  # type: ignore[dict-item]
    return with_layers(dict(lead.config), {prefix: taken}, sources["lead"], sources)


def test_a_list_with_an_entry_a_layer_follows_the_layers() -> None:
    lead = model(3, layer_types=["a", "b", "c"], no_rope_layers=[1, 0, 1], eos_token_id=[7, 8, 9])
    deep = model(4, layer_types=["d", "e", "f", "g"], no_rope_layers=[0, 0, 0, 1])
    config = moved([0, 1, ("deep", 3), 1, ("deep", 2)], lead, deep=deep)
    assert config == {
        "num_hidden_layers": 5,
        "layer_types": ["a", "b", "g", "b", "f"],
        "no_rope_layers": [1, 0, 1, 0, 0],
        "eos_token_id": [7, 8, 9],
    }


def test_a_list_of_layers_by_number_follows_the_layers() -> None:
    lead = model(4, mlp_only_layers=[0, 2])
    assert moved([0, 1, 2, 1, 2, 3], lead)["mlp_only_layers"] == [0, 2, 4]
    assert moved([3, 1], lead)["mlp_only_layers"] == []


def test_every_nth_layer_with_experts_becomes_a_list() -> None:
    lead = model(4, decoder_sparse_step=2, mlp_only_layers=[1])  # experts in layer 3 alone
    config = moved([3, 3, 0, 1], lead)
    assert config["mlp_only_layers"] == [2, 3]
    assert config["decoder_sparse_step"] == 1


def test_dense_layers_come_first_or_are_refused() -> None:
    lead = model(4, first_k_dense_replace=2)
    assert moved([0, 1, 1, 2, 3], lead)["first_k_dense_replace"] == 3
    with pytest.raises(RecipeError, match="layers without experts can only come first"):
        moved([0, 2, 1], lead)


def test_a_setting_that_only_one_of_the_models_has_is_refused() -> None:
    lead = model(2, layer_types=["a", "b"])
    with pytest.raises(RecipeError, match=r"other has no layer_types in its config\.json"):
        moved([0, ("other", 1)], lead, other=model(2))


def test_what_transformers_derives_from_a_layer_s_number_is_written_out() -> None:
    """Gemma 2's layers take turns: the first slides."""
    written = AutoConfig.for_model("gemma2", num_hidden_layers=4).to_dict()
    del written["layer_types"]
    lead = model(4, **written)
    slides, sees_all = "sliding_attention", "full_attention"
    assert moved([0, 1, 1, 2, 3], lead)["layer_types"] == [
        *(slides, sees_all, sees_all, slides, sees_all)
    ]


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "n_layers", "num_layers"])
def test_the_depth_is_written_where_it_was_said(key: str) -> None:
    lead = model(3)
    lead.config = {key: 3}
    assert moved([0, 1, 1, 2], lead) == {key: 4}


def test_layers_of_a_nested_language_model() -> None:
    text = {"num_hidden_layers": 2, "layer_types": ["a", "b"]}
    lead = model(2, text_config=text, vision_config={"depth": 2})
    config = moved([0, 1, 1], lead)
    assert config["text_config"] == {"num_hidden_layers": 3, "layer_types": ["a", "b", "b"]}
    assert config["num_hidden_layers"] == 3  # old configurations say it at the top too
    assert config["vision_config"] == {"depth": 2}
    assert "layer_types" not in config


def test_layers_of_a_vision_tower() -> None:
    lead = model(2, prefix="visual.blocks.", vision_config={"depth": 2})
    lead.config["num_hidden_layers"] = 9
    config = moved([0, 1, 0], lead)
    assert config == {"num_hidden_layers": 9, "vision_config": {"depth": 3}}


def sources_of(name: str, folder: Path) -> dict[str, Source]:
    base = save_architecture(folder / "base", name)
    expert = save_expert(folder / "expert", of=base, seed=1)
    return {
        key: open_source(str(path), where="test")
        for key, path in {"base": base, "expert": expert}.items()
    }


def merge_to(folder: Path, recipe: Recipe, sources: dict[str, Source]) -> Config:
    engine = MergeEngine(sources)
    plan = engine.plan(recipe)
    folder.mkdir()
    write_tensors(folder, dict(engine.execute(recipe)))
    write_configs(recipe, plan, sources, folder, with_code=False)
    config: Config = json.loads((folder / "config.json").read_text())
    return config


def sliced(*ranges: tuple[str, int, int]) -> list[Config]:
    return [
        {"sources": [{"model": name, "layer_range": (first, end), "parameters": {"weight": 1.0}}]}
        for name, first, end in ranges
    ]


FRANKEN = sliced(("base", 0, 2), ("expert", 1, 3), ("base", 1, 3))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("llama", "num_hidden_layers"),
        ("qwen2", "num_hidden_layers"),
        ("gemma2", "num_hidden_layers"),
        ("gemma3", "num_hidden_layers"),
        ("qwen3_moe", "num_hidden_layers"),
        ("mamba", "num_hidden_layers"),
        ("gpt2", "n_layer"),
        ("gpt_neox", "num_hidden_layers"),
        ("bert_classifier", "num_hidden_layers"),
    ],
)
def test_plain_transformers_loads_a_frankenmerge(name: str, key: str, tmp_path: Path) -> None:
    sources = sources_of(name, tmp_path)
    recipe = Recipe.model_validate({"merge_method": "linear", "slices": FRANKEN})
    config = merge_to(tmp_path / "out", recipe, sources)
    assert config[key] == 6
    kinds = sources["base"].config.get("layer_types")
    if kinds:
        assert config["layer_types"] == [kinds[i] for i in (0, 1, 1, 2, 1, 2)]
    loaded = load_whole(tmp_path / "out", name)
    assert torch.isfinite(loaded(torch.tensor([[5, 6, 7]])).logits).all()


def test_plain_transformers_loads_sliced_modules(tmp_path: Path) -> None:
    sources = sources_of("t5", tmp_path)
    modules = {
        "encoder": {"slices": sliced(("base", 0, 2), ("expert", 0, 2))},
        "decoder": {"slices": sliced(("base", 0, 1), ("expert", 2, 3))},
    }
    recipe = Recipe.model_validate(
        {"merge_method": "linear", "base_model": "base", "modules": modules}
    )
    config = merge_to(tmp_path / "out", recipe, sources)
    assert (config["num_layers"], config["num_decoder_layers"]) == (4, 2)
    load_whole(tmp_path / "out", "t5")


def test_a_t5_that_does_not_say_its_decoder_s_depth_keeps_it(tmp_path: Path) -> None:
    sources = sources_of("t5", tmp_path)
    unsaid = {key: v for key, v in sources["base"].config.items() if key != "num_decoder_layers"}
    lead = Given(unsaid, sources["base"].structure)
    layers = {"encoder.block.": (Layer("lead", 0),)}
    config = with_layers(unsaid, layers, lead, {"lead": lead})  # type: ignore[arg-type, dict-item]
    assert (config["num_layers"], config["num_decoder_layers"]) == (1, 3)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_plain_transformers_loads_a_vision_language_model_with_sliced_parts(
    name: str, tmp_path: Path
) -> None:
    sources = sources_of(name, tmp_path)
    modules = {
        "text_decoder": {"slices": FRANKEN},
        "vision_tower": {"slices": sliced(("base", 0, 2), ("expert", 1, 2))},
    }
    recipe = Recipe.model_validate(
        {
            "merge_method": "linear",
            "base_model": "base",
            "modules": modules,
            "out_dtype": "bfloat16",
        }
    )
    config = merge_to(tmp_path / "out", recipe, sources)
    assert config["text_config"]["num_hidden_layers"] == 6
    assert 3 in (config["vision_config"].get(key) for key in ("depth", "num_hidden_layers"))
    loaded = load_whole(tmp_path / "out", name)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}

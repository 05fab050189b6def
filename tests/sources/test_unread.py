"""What transformers does not read of a checkpoint is no difference in how a model is built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import PreTrainedConfig

from evomerge.errors import RecipeError, SourceError
from evomerge.merge.engine import MergeEngine
from evomerge.recipe import Recipe, RecipeModel
from evomerge.sources import check_compatible, open_source
from tests.architectures import save_architecture, save_expert, write_tensors
from tests.checkpoints import load_tensors, replace_tensors, save_fine_tuned, save_tiny_llama
from tests.sources.conftest import change_config

Tensors = dict[str, torch.Tensor]

_SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def mask(width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.tril(torch.ones(width, width, dtype=dtype)).view(1, 1, width, width)


def hub_gpt2(tensors: Tensors) -> Tensors:
    """Names without the prefix, and the masks of attention."""
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {f"h.{layer}.attn.bias": mask(64, torch.float32) for layer in range(3)}
    return {**bare, **masks, "h.0.attn.masked_bias": torch.tensor(-1e4)}


def hub_gpt_neox(tensors: Tensors) -> Tensors:
    masks = {f"gpt_neox.layers.{n}.attention.bias": mask(64, torch.bool) for n in range(3)}
    filled = {f"gpt_neox.layers.{n}.attention.masked_bias": torch.tensor(-1e9) for n in range(3)}
    frequencies = {
        f"gpt_neox.layers.{n}.attention.rotary_emb.inv_freq": torch.ones(2) for n in range(3)
    }
    return {**tensors, **masks, **filled, **frequencies}


def hub_bert(tensors: Tensors) -> Tensors:
    """Positions, the names of LayerNorm of old, the head's second name, what pretraining had."""
    named = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    return {
        **named,
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
        "cls.seq_relationship.weight": torch.ones(2, 16),
        "cls.seq_relationship.bias": torch.ones(2),
    }


def hub_t5(tensors: Tensors) -> Tensors:
    shared = tensors["shared.weight"]
    return {
        **tensors,
        "encoder.embed_tokens.weight": shared.clone(),
        "decoder.embed_tokens.weight": shared.clone(),
        "lm_head.weight": shared.clone(),
    }


@pytest.mark.parametrize(
    ("name", "hub"),
    [("gpt2", hub_gpt2), ("gpt_neox", hub_gpt_neox), ("bert", hub_bert), ("t5", hub_t5)],
)
def test_a_base_as_the_hub_has_it_fits_a_fine_tune_saved_today(
    tmp_path: Path, name: str, hub: Callable[[Tensors], Tensors]
) -> None:
    base = save_architecture(tmp_path / "base", name)
    expert = save_expert(tmp_path / "expert", of=base, seed=1)
    before, after = load_tensors(base), load_tensors(expert)
    write_tensors(base, hub(before))
    check_fits_and_merges(base, expert, before, after)


def hub_qwen3_next() -> tuple[str, PreTrainedConfig, Callable[[Tensors], Tensors]]:
    config = transformers.Qwen3NextConfig(
        **{**_SMALL, "num_hidden_layers": 4},
        num_key_value_heads=2,
        head_dim=8,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
    )

    def with_drafts(tensors: Tensors) -> Tensors:
        drafts = {
            f"mtp.layers.0.{name.partition('layers.3.')[2]}": tensor.clone()
            for name, tensor in tensors.items()
            if ".layers.3." in name
        }
        return {**tensors, **drafts, "mtp.fc.weight": torch.ones(16, 32)}

    return "Qwen3NextForCausalLM", config, with_drafts


def hub_deepseek() -> tuple[str, PreTrainedConfig, Callable[[Tensors], Tensors]]:
    config = transformers.DeepseekV3Config(
        **_SMALL,
        num_key_value_heads=4,
        moe_intermediate_size=8,
        n_routed_experts=2,
        num_experts_per_tok=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
        num_nextn_predict_layers=1,
    )

    def with_drafts(tensors: Tensors) -> Tensors:
        drafts = {
            name.replace("layers.1.", "layers.2."): tensor.clone()
            for name, tensor in tensors.items()
            if ".layers.1." in name
        }
        return {**tensors, **drafts, "model.layers.2.eh_proj.weight": torch.ones(16, 32)}

    return "DeepseekV3ForCausalLM", config, with_drafts


@pytest.mark.parametrize("make", [hub_qwen3_next, hub_deepseek])
def test_layers_that_draft_tokens_may_be_gone_in_a_fine_tune(
    tmp_path: Path, make: Callable[[], tuple[str, PreTrainedConfig, Callable[[Tensors], Tensors]]]
) -> None:
    kind, config, hub = make()
    base = tmp_path / "base"
    torch.manual_seed(0)
    getattr(transformers, kind)(config).save_pretrained(base)
    expert = save_expert(tmp_path / "expert", of=base, seed=1)
    before, after = load_tensors(base), load_tensors(expert)
    write_tensors(base, hub(before))
    check_fits_and_merges(base, expert, before, after)
    # Where every model has them, they are merged as the rest is.
    write_tensors(expert, hub(after))
    assert merged_of(base, expert).keys() == hub(before).keys()


def check_fits_and_merges(base: Path, expert: Path, before: Tensors, after: Tensors) -> None:
    """The mean of the two, whichever comes first, and nothing that only one of them has."""
    for order in ((base, expert), (expert, base)):
        merged = merged_of(*order)
        assert len(merged) == len(before)
        means = {name: (before[name].float() + after[name].float()) / 2 for name in before}
        if order[0] is expert:
            assert merged.keys() == before.keys()
            for name, tensor in merged.items():
                torch.testing.assert_close(tensor.float(), means[name], rtol=1e-5, atol=1e-6)
        sums = sorted(float(tensor.double().sum()) for tensor in merged.values())
        expected = sorted(float(tensor.double().sum()) for tensor in means.values())
        assert sums == pytest.approx(expected, rel=1e-4, abs=1e-4)


def merged_of(*folders: Path) -> Tensors:
    sources = {str(folder): open_source(str(folder), where="test") for folder in folders}
    check_compatible(list(sources.values()))
    models = tuple(RecipeModel(model=name, parameters={"weight": 0.5}) for name in sources)
    recipe = Recipe(merge_method="linear", models=models)
    return {name: tensor.clone() for name, tensor in MergeEngine(sources).execute(recipe)}


def test_a_tensor_that_no_model_of_transformers_has_is_a_difference(saved: Path) -> None:
    other = save_fine_tuned(saved.parent / "other", of=saved, seed=1)
    replace_tensors(other, {"model.extra": torch.zeros(3)})
    with pytest.raises(RecipeError, match=r"has a tensor model\.extra, which"):
        MergeEngine(
            {str(each): open_source(str(each), where="test") for each in (saved, other)}
        ).plan(
            Recipe(
                merge_method="linear",
                models=tuple(
                    RecipeModel(model=str(each), parameters={"weight": 0.5})
                    for each in (saved, other)
                ),
            )
        )


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "tied", seed=0, tied=True)


def with_own_head(folder: Path, of: Path) -> Path:
    shutil.copytree(of, folder)
    replace_tensors(folder, {"lm_head.weight": load_tensors(of)["model.embed_tokens.weight"] + 1})
    return folder


def test_a_head_of_its_own_unties_a_model_whatever_its_config_says(tied: Path) -> None:
    own = with_own_head(tied.parent / "own", tied)
    assert json.loads((own / "config.json").read_text())["tie_word_embeddings"] is True
    source = open_source(str(own), where="test")
    assert not source.structure.tied
    assert source.config["tie_word_embeddings"] is False
    loaded = transformers.AutoModelForCausalLM.from_pretrained(own)
    assert torch.equal(loaded.lm_head.weight, source.tensor("lm_head.weight"))


def test_a_head_that_repeats_the_embeddings_changes_nothing(tied: Path) -> None:
    shutil.copytree(tied, tied.parent / "twice")
    twice = tied.parent / "twice"
    replace_tensors(twice, {"lm_head.weight": load_tensors(tied)["model.embed_tokens.weight"]})
    source = open_source(str(twice), where="test")
    assert source.structure.tied
    assert source.config["tie_word_embeddings"] is True
    for order in ((tied, twice), (twice, tied), (twice,)):
        assert "lm_head.weight" not in merged_of(*order)


@pytest.mark.parametrize("own_first", [False, True])
def test_an_own_head_is_not_lost_in_a_merge_with_a_tied_model(tied: Path, own_first: bool) -> None:
    own = with_own_head(tied.parent / "own", tied)
    folders = (own, tied) if own_first else (tied, own)
    sources = {str(folder): open_source(str(folder), where="test") for folder in folders}
    models = tuple(RecipeModel(model=name, parameters={"weight": 0.5}) for name in sources)
    with pytest.raises(RecipeError, match=r"own has a head of its own, lm_head\.weight, and"):
        MergeEngine(sources).plan(Recipe(merge_method="linear", models=models))
    with pytest.raises(SourceError, match="tie_word_embeddings"):
        check_compatible(list(sources.values()))


def test_two_own_heads_are_merged(tied: Path) -> None:
    own = with_own_head(tied.parent / "own", tied)
    other = save_expert(tied.parent / "other", of=own, seed=3)
    merged = merged_of(own, other)["lm_head.weight"]
    expected = (load_tensors(own)["lm_head.weight"] + load_tensors(other)["lm_head.weight"]) / 2
    torch.testing.assert_close(merged, expected)


def test_models_that_transformers_does_not_know_are_told_by_their_tensors(tied: Path) -> None:
    change_config(tied, model_type="of_its_own", architectures=["OwnForCausalLM"])
    own = with_own_head(tied.parent / "own", tied)
    assert not open_source(str(own), where="test").structure.tied
    assert open_source(str(tied), where="test").structure.tied
    replace_tensors(tied, {"model.position_ids": torch.arange(4)[None]})
    assert open_source(str(tied), where="test").structure.ignored == {"model.position_ids"}

"""PEFT adapters as sources, against PEFT's own merge in float32."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evomerge.sources import Adapter, check_compatible, open_source
from tests.architectures import write_tensors
from tests.checkpoints import load_tensors
from tests.sources.adapters import LLAMA, adapt, train, weights_of
from tests.sources.conftest import change_config, change_json, refused

pytestmark = pytest.mark.filterwarnings("ignore:.*save_embedding_layers.*", "ignore::UserWarning")

ATOL = 1e-6
"""PEFT adds the change after rounding it, here both are one operation; values are below 1."""

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "two targets": ("llama", {**LLAMA, "r": 4, "lora_alpha": 12}),
    "rank-stabilised": ("llama", {**LLAMA, "r": 4, "use_rslora": True}),
    "ranks by pattern": (
        "llama",
        {
            **LLAMA,
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 3},
            "alpha_pattern": {"v_proj": 5, "model.layers.0.self_attn.q_proj": 7},
        },
    ),
    "some layers": ("llama", {**LLAMA, "layers_to_transform": [1, 2]}),
    "all linear modules": ("qwen2", {"target_modules": "all-linear", "r": 3}),
    "embeddings and head": ("llama", {"target_modules": ["embed_tokens", "lm_head", "o_proj"]}),
    "tied embeddings": ("qwen2", {"target_modules": ["embed_tokens", "o_proj"]}),
    "whole modules": ("llama", {**LLAMA, "modules_to_save": ["lm_head", "embed_tokens"]}),
    "biases of its modules": ("qwen2", {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "all biases": ("gpt_neox", {"target_modules": ["query_key_value"], "bias": "all"}),
    "modules that store (in, out)": ("gpt2", {"target_modules": ["c_attn", "c_fc"]}),
    "square modules that store (in, out)": ("gpt2", {"target_modules": ["c_proj"]}),
    "modules of both kinds": ("gpt2", {"target_modules": ["c_proj", "wte"]}),
    "beside experts": ("mixtral", {"target_modules": ["q_proj", "o_proj"]}),
    "magnitudes": ("llama", {**LLAMA, "use_dora": True}),
    "magnitudes of (in, out)": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "use_dora": True}),
    "a classifier": ("bert_classifier", {"target_modules": ["query"], "task_type": "SEQ_CLS"}),
    "encoder and decoder": ("t5", {"target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM"}),
    "a state-space model": ("mamba", {"target_modules": ["in_proj", "x_proj"]}),
    "a vision-language model": (
        "llava",
        {"target_modules": r".*(language_model.*q_proj|linear_1|vision_tower.*k_proj)"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_its_base_with_the_change_that_peft_merges(tmp_path: Path, kind: str) -> None:
    architecture, settings = KINDS[kind]
    trained = train(tmp_path, settings, architecture=architecture)
    source = trained.open()
    base = load_tensors(trained.base)
    for name in source.structure.shapes:
        tensor, expected = source.tensor(name), trained.merged[name]
        left = torch.equal(expected, base[name])
        assert left == (tensor is source.base.tensor(name))
        assert tensor.dtype == torch.float32
        assert tensor.shape == source.structure.shapes[name]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=ATOL)
    assert set(trained.merged) == set(base) == set(source.structure.shapes)
    assert not all(torch.equal(trained.merged[name], base[name]) for name in base)


def test_what_an_adapter_leaves_is_the_bases_own_memory(tmp_path: Path) -> None:
    trained = train(tmp_path, LLAMA)
    base = open_source(str(trained.base), where="test")
    source = open_source(str(trained.adapter), where="test", base=base)
    left = "model.layers.0.self_attn.k_proj.weight"
    assert source.tensor(left).data_ptr() == base.tensor(left).data_ptr()
    changed = "model.layers.0.self_attn.q_proj.weight"
    before = base.tensor(changed).clone()
    assert not torch.equal(source.tensor(changed), before)
    assert torch.equal(base.tensor(changed), before)
    assert source.structure is base.structure
    assert source.config is base.config
    assert source.folder == trained.adapter.resolve()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_change_of_a_stored_tensor_is_not_rounded(tmp_path: Path, dtype: torch.dtype) -> None:
    trained = train(tmp_path, LLAMA)
    exact = trained.open()
    write_tensors(trained.base, {n: t.to(dtype) for n, t in load_tensors(trained.base).items()})
    source = trained.open()
    name = "model.layers.2.mlp.down_proj.weight"
    stored = source.base.tensor(name)
    assert stored.dtype == dtype
    delta = exact.tensor(name) - exact.base.tensor(name)
    torch.testing.assert_close(source.tensor(name) - stored.float(), delta, rtol=0, atol=ATOL)
    assert source.structure.dtypes[name] == str(dtype).removeprefix("torch.")


def test_adapters_of_several_ranks_and_targets_fit_each_other(tmp_path: Path) -> None:
    trained = train(tmp_path, {**LLAMA, "r": 2})
    other = adapt(trained.base, tmp_path / "other", {"target_modules": ["up_proj"], "r": 5}, seed=1)
    base = open_source(str(trained.base), where="test")
    adapters = [
        open_source(str(each.adapter), where="test", base=base) for each in (trained, other)
    ]
    assert check_compatible([base, *adapters]) is base.structure
    name = "model.layers.1.mlp.up_proj.weight"
    assert adapters[0].tensor(name) is base.tensor(name)
    torch.testing.assert_close(adapters[1].tensor(name), other.merged[name], rtol=0, atol=ATOL)


def test_words_added_in_training_are_rows_more(tmp_path: Path) -> None:
    trained = train(tmp_path, LLAMA, rows=3)
    source = trained.open()
    assert source.config["vocab_size"] == 43
    assert source.base.config["vocab_size"] == 40
    for name, expected in trained.merged.items():
        assert source.structure.shapes[name] == tuple(expected.shape)
        torch.testing.assert_close(source.tensor(name).float(), expected, rtol=0, atol=ATOL)
    sources = [source.base, source]
    assert check_compatible(sources, vocabularies_may_differ=True) is source.base.structure


def test_a_head_saved_beside_embeddings_it_is_tied_to_is_one_with_them(tmp_path: Path) -> None:
    trained = train(tmp_path, {"target_modules": ["q_proj"]}, architecture="qwen2", rows=3)
    assert any("lm_head" in name for name in load_file(weights_of(trained.adapter)))
    source = trained.open()
    assert "lm_head.weight" not in source.structure.shapes
    name = "model.embed_tokens.weight"
    torch.testing.assert_close(source.tensor(name), trained.merged[name], rtol=0, atol=ATOL)


def test_an_adapter_fits_a_base_stored_under_other_prefixes(tmp_path: Path) -> None:
    """Trained on the encoder alone, or before transformers moved the language model's modules."""
    trained = train(tmp_path, LLAMA)
    moved = {
        name.replace("model.", "language_model.model."): tensor
        for name, tensor in load_tensors(trained.base).items()
    }
    write_tensors(trained.base, moved)
    source = trained.open()
    name = "layers.1.self_attn.v_proj.weight"
    torch.testing.assert_close(
        source.tensor(f"language_model.model.{name}"),
        trained.merged[f"model.{name}"],
        rtol=0,
        atol=ATOL,
    )


def test_hashes_cover_the_adapter_and_its_base(tmp_path: Path) -> None:
    trained = train(tmp_path, LLAMA)
    source = trained.open()
    digests = dict(source.sha256())
    assert set(digests) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "base/config.json",
        "base/generation_config.json",
        "base/model.safetensors",
    }
    assert set(source.files) == set(digests)
    assert digests["base/model.safetensors"] == source.base.sha256()["model.safetensors"]
    change_json(trained.adapter / "adapter_config.json", lora_alpha=99)
    change_config(trained.base, note="changed")
    after = source.sha256()
    changed = {name for name in digests if digests[name] != after[name]}
    assert changed == {"adapter_config.json", "base/config.json"}


def test_model_plus_adapter_names_both(tmp_path: Path) -> None:
    trained = train(tmp_path, LLAMA)
    change_json(trained.adapter / "adapter_config.json", base_model_name_or_path=None)
    reference = f"{trained.base}+{trained.adapter}"
    source = open_source(reference, where="test")
    assert isinstance(source, Adapter)
    assert (source.reference, source.folder) == (reference, trained.adapter.resolve())
    assert source.base.reference == str(trained.base)
    assert f"{trained.base} is not an adapter" in refused(f"{trained.base}+{trained.base}")
    folder_with_plus = tmp_path / "base+more"
    shutil.copytree(trained.base, folder_with_plus)
    assert open_source(str(folder_with_plus), where="test").folder == folder_with_plus.resolve()


@pytest.mark.parametrize(
    ("base", "adapter"), [("base", "a+b+c"), ("base+more", "adapter"), ("base+1", "adapter+2")]
)
def test_model_plus_adapter_may_have_a_plus_in_either_path(
    tmp_path: Path, base: str, adapter: str
) -> None:
    trained = train(tmp_path / "trained", LLAMA)
    model, change = tmp_path / base, tmp_path / adapter
    shutil.copytree(trained.base, model)
    shutil.copytree(trained.adapter, change)
    source = open_source(f"{model}+{change}", where="test")
    assert isinstance(source, Adapter)
    assert (source.folder, source.base.folder) == (change.resolve(), model.resolve())
    nowhere = tmp_path / "nowhere+1"
    assert refused(f"{model}+{nowhere}").startswith(f"models.base: {model}+")


def test_the_model_of_model_plus_adapter_may_be_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train(tmp_path / "trained", LLAMA)
    change = tmp_path / "a+b"
    shutil.copytree(trained.adapter, change)
    asked = []

    def fetched(name: str, *, revision: str | None, **options: object) -> str:
        asked.append((name, revision))
        return str(trained.base)

    monkeypatch.setattr("evomerge.sources.files.snapshot_download", fetched)
    source = open_source(f"org/base@0a1b+{change}", where="test")
    assert isinstance(source, Adapter)
    assert source.folder == change.resolve()
    assert asked == [("org/base", "0a1b")]

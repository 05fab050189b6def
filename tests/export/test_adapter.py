"""A merge as one LoRA adapter: PEFT and evomerge make of it what the merged checkpoint holds."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

from evomerge.errors import InputError, MergeError, RecipeError, RunError
from evomerge.export import merge_recipe
from evomerge.export.adapter_facts import AdapterFacts
from evomerge.export.manifest import changed_files, read_manifest
from evomerge.recipe import Recipe, load_recipe
from evomerge.sources import open_source
from tests.architectures import ARCHITECTURES, save_architecture, write_tensors
from tests.checkpoints import load_tensors, save_fine_tuned, save_tiny_llama, word_tokenizer
from tests.export.conftest import contents
from tests.sources.adapters import LLAMA, save_adapter

ATOL = 2e-7
"""A rounding of float32 at values below 1, of the product and of the sum; float32 checkpoints."""

OTHER = {"r": 3, "target_modules": ["q_proj", "up_proj"], "lora_alpha": 5}


@dataclass(frozen=True)
class Pair:
    """A base and two adapters over it."""

    folder: Path
    architecture: str

    @property
    def base(self) -> str:
        return str(self.folder / "base")

    def adapter(self, number: int) -> str:
        return str(self.folder / f"a{number}")

    def recipe(self, *, weights: Any = ([0.3, -0.8], 0.7), **changes: Any) -> Recipe:
        document: dict[str, Any] = {
            "merge_method": "task_arithmetic",
            "base_model": self.base,
            "models": [
                {
                    "model": self.adapter(number),
                    "parameters": {} if weight is None else {"weight": weight},
                }
                for number, weight in enumerate(weights, start=1)
            ],
            "out_dtype": "float32",
        }
        return Recipe.model_validate({**document, **changes})

    def export(self, out: Path, recipe: Recipe, *, rank: int | None = None) -> AdapterFacts:
        facts = merge_recipe(recipe, out, as_adapter=True, rank=rank).adapter
        assert facts is not None
        return facts

    def by_peft(self, adapter: Path, out: Path) -> Mapping[str, torch.Tensor]:
        """The tensors of what PEFT makes of base and adapter, loaded without a word of either."""
        kind = getattr(transformers, ARCHITECTURES[self.architecture][0])
        model = kind.from_pretrained(self.base, dtype=torch.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
            loaded = PeftModel.from_pretrained(model, adapter)
        loaded.merge_and_unload().save_pretrained(out)
        return load_tensors(out)

    def by_evomerge(self, adapter: Path) -> Mapping[str, torch.Tensor]:
        source = open_source(f"{self.base}+{adapter}", where="test")
        return {name: source.tensor(name).float() for name in source.structure.shapes}


def make_pair(
    folder: Path, *settings: Mapping[str, Any], architecture: str = "llama", tied: bool = False
) -> Pair:
    base = (
        save_tiny_llama(folder / "base", seed=0, layers=2, tied=tied)
        if architecture == "llama"
        else save_architecture(folder / "base", architecture)
    )
    for seed, setting in enumerate(settings, start=1):
        save_adapter(base, folder / f"a{seed}", setting, architecture=architecture, seed=seed)
    return Pair(folder, architecture)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Shared and never changed; `first` and `second` are full fine-tunes of its base."""
    folder = tmp_path_factory.mktemp("pair")
    pair = make_pair(folder, {**LLAMA, "r": 4, "lora_alpha": 12}, OTHER)
    for seed, name in enumerate(("first", "second"), start=1):
        save_fine_tuned(folder / name, of=folder / "base", seed=seed)
    return pair


def ties(pair: Pair) -> Recipe:
    models = [
        {"model": str(pair.folder / name), "parameters": {"weight": 0.6, "density": 0.7}}
        for name in ("first", "second")
    ]
    return pair.recipe(merge_method="ties", models=models)


def agree(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=ATOL, msg=name)


KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ranks by pattern, some layers, rank-stabilised, embeddings": (
        "llama",
        {**LLAMA, "r": 4, "rank_pattern": {"q_proj": 2}, "layers_to_transform": [1]},
        {"r": 3, "target_modules": ["q_proj", "embed_tokens"], "use_rslora": True},
    ),
    "(in, out), biases, tied embeddings of another name": (
        "gpt2",
        {"r": 2, "target_modules": ["c_attn", "wte"]},
        {"r": 3, "target_modules": ["c_proj"], "bias": "all"},
    ),
    "tied embeddings, norms and biases": (
        "qwen2",
        {"r": 2, "target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["k_proj"], "bias": "lora_only", "modules_to_save": ["input_layernorm"]},
    ),
    "tied embeddings alone": ("qwen2", *2 * ({"r": 2, "target_modules": ["embed_tokens"]},)),
    "a vision-language model": (
        "llava",
        {"r": 2, "target_modules": r".*(language_model.*q_proj|linear_1)"},
        {"r": 3, "target_modules": r".*(language_model.*v_proj)"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_sum_of_adapters_is_exact(tmp_path: Path, kind: str) -> None:
    architecture, *settings = KINDS[kind]
    pair = make_pair(tmp_path, *settings, architecture=architecture)
    recipe = pair.recipe(parameters={"lambda": 1.3})
    merge_recipe(recipe, tmp_path / "whole")
    facts = pair.export(tmp_path / "adapter", recipe)
    merged = load_tensors(tmp_path / "whole")
    assert facts.exact and facts.error == 0.0
    agree(pair.by_peft(tmp_path / "adapter", tmp_path / "by-peft"), merged)
    agree(pair.by_evomerge(tmp_path / "adapter"), merged)


def test_every_module_has_one_rank_and_the_scale_one(pair: Pair, tmp_path: Path) -> None:
    facts = pair.export(tmp_path / "out", pair.recipe())
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == facts.rank == 7
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert not config["use_rslora"] and not config["use_dora"]
    assert config["target_modules"] == ["down_proj", "q_proj", "up_proj", "v_proj"]
    assert config["base_model_name_or_path"] == pair.base
    assert config["task_type"] == "CAUSAL_LM"
    for name, tensor in load_file(tmp_path / "out" / "adapter_model.safetensors").items():
        assert tensor.dtype == torch.float32
        assert tensor.shape[0 if ".lora_A." in name else 1] == 7, name


WHOLE: dict[str, tuple[int, dict[str, Any]]] = {
    "one weight of zero": (3, {"weights": (0.0, 0.7)}),
    "all of zero": (1, {"weights": (0.0, 0.0)}),
    "normalised": (7, {"weights": (0.4, 0.9), "parameters": {"normalize": True}}),
    "all kept": (7, {"merge_method": "dare_linear"}),
    "averaged": (7, {"merge_method": "linear", "base_model": None, "weights": (0.4, 0.9)}),
    "by angles": (7, {"merge_method": "model_stock", "weights": (None, None)}),
}


@pytest.mark.parametrize("case", WHOLE)
def test_any_method_that_adds_whole_adapters_is_exact(
    pair: Pair, tmp_path: Path, case: str
) -> None:
    rank, changes = WHOLE[case]
    recipe = pair.recipe(**changes)
    merge_recipe(recipe, tmp_path / "whole")
    facts = pair.export(tmp_path / "adapter", recipe)
    assert (facts.exact, facts.rank) == (True, rank)
    agree(pair.by_evomerge(tmp_path / "adapter"), load_tensors(tmp_path / "whole"))


def test_a_base_with_an_adapter_of_its_own_is_one_more_term(pair: Pair, tmp_path: Path) -> None:
    over = f"{pair.base}+{pair.adapter(1)}"
    models = [{"model": f"{pair.base}+{pair.adapter(2)}", "parameters": {"weight": 0.6}}]
    recipe = pair.recipe(base_model=over, models=models)
    merge_recipe(recipe, tmp_path / "whole")
    assert pair.export(tmp_path / "adapter", recipe).exact
    agree(pair.by_evomerge(tmp_path / "adapter"), load_tensors(tmp_path / "whole"))


def test_in_bfloat16_it_is_the_merge_within_one_rounding(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", seed=0, layers=2, dtype=torch.bfloat16)
    for number, settings in enumerate((LLAMA, OTHER), start=1):
        save_adapter(base, tmp_path / f"a{number}", settings, seed=number)
    pair = Pair(tmp_path, "llama")
    merge_recipe(pair.recipe(out_dtype="bfloat16"), tmp_path / "whole")
    pair.export(tmp_path / "adapter", pair.recipe(out_dtype="bfloat16"))
    merged = load_tensors(tmp_path / "whole")
    for name, tensor in pair.by_evomerge(tmp_path / "adapter").items():
        assert merged[name].dtype == torch.bfloat16
        assert torch.allclose(tensor.bfloat16(), merged[name], rtol=2**-7, atol=0), name


def test_the_nearest_adapter_says_its_error(pair: Pair, tmp_path: Path) -> None:
    merge_recipe(ties(pair), tmp_path / "whole")
    facts = pair.export(tmp_path / "adapter", ties(pair), rank=8)
    merged, base = load_tensors(tmp_path / "whole"), load_tensors(pair.folder / "base")
    found = pair.by_peft(tmp_path / "adapter", tmp_path / "by-peft")
    misses, wholes = [], []
    for name in merged:
        if merged[name].dim() < 2:
            torch.testing.assert_close(found[name], merged[name], rtol=0, atol=0)
            continue
        change, missed = merged[name] - base[name], merged[name] - found[name]
        error = float(missed.norm() / change.norm())
        assert facts.errors[name.removesuffix(".weight")] == pytest.approx(error, rel=1e-3)
        tail = torch.linalg.svdvals(change)[8:].norm()
        assert float(missed.norm()) == pytest.approx(float(tail), rel=1e-3)
        misses.append(float(missed.norm()) ** 2)
        wholes.append(float(change.norm()) ** 2)
    assert not facts.exact
    assert facts.error == pytest.approx((sum(misses) / sum(wholes)) ** 0.5, rel=1e-3)
    assert facts.worst[1] == max(facts.errors.values())
    stated = read_manifest(tmp_path / "adapter")["adapter"]
    assert stated["relative_error"] == facts.error and not stated["exact"]
    assert stated["relative_errors"] == dict(facts.errors)
    assert f"at worst {facts.worst[1]:.2g} in {facts.worst[0]}" in facts.fidelity
    assert "relative error" in (tmp_path / "adapter" / "README.md").read_text()


@pytest.mark.parametrize("tied", [False, True])
def test_at_full_rank_any_merge_is_an_adapter(pair: Pair, tmp_path: Path, tied: bool) -> None:
    if tied:
        pair = make_pair(tmp_path / "tied", tied=True)
        for seed, name in enumerate(("first", "second"), start=1):
            save_fine_tuned(tmp_path / "tied" / name, of=tmp_path / "tied" / "base", seed=seed)
    merge_recipe(ties(pair), tmp_path / "whole")
    facts = pair.export(tmp_path / "adapter", ties(pair), rank=32)
    assert facts.error < 1e-5
    agree(
        pair.by_peft(tmp_path / "adapter", tmp_path / "by-peft"), load_tensors(tmp_path / "whole")
    )


def test_a_sum_is_cut_to_the_nearest_of_the_rank_and_only_if_it_is_larger(
    pair: Pair, tmp_path: Path
) -> None:
    merge_recipe(pair.recipe(), tmp_path / "whole")
    cut = pair.export(tmp_path / "cut", pair.recipe(), rank=4)
    merged, base = load_tensors(tmp_path / "whole"), load_tensors(pair.folder / "base")
    change = (
        merged["model.layers.0.self_attn.q_proj.weight"]
        - base["model.layers.0.self_attn.q_proj.weight"]
    )
    tail = torch.linalg.svdvals(change)[4:].norm() / change.norm()
    stated = cut.errors["model.layers.0.self_attn.q_proj"]
    assert stated == pytest.approx(float(tail), rel=1e-3)
    assert cut.errors["model.layers.0.self_attn.v_proj"] == 0.0
    assert pair.export(tmp_path / "kept", pair.recipe(), rank=20).exact


def test_what_only_rounds_otherwise_is_no_change(pair: Pair, tmp_path: Path) -> None:
    models = [{"model": pair.base}, {"model": pair.adapter(1)}]
    arc = pair.recipe(merge_method="slerp", models=models, parameters={"t": 0.4})
    facts = pair.export(tmp_path / "adapter", arc, rank=6)
    assert (facts.modules, facts.whole) == (6, ())
    assert all(name.endswith(("q_proj", "v_proj", "down_proj")) for name in facts.errors)


def test_a_recipe_without_a_base_names_the_adapters_for_the_next_time(
    pair: Pair, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(
        {"merge_method": "passthrough", "models": [{"model": str(pair.folder / "first")}]}
    )
    block = {"adapter": {"base": pair.base}}
    pair.export(tmp_path / "one", recipe.model_copy(update={"evomerge": block}), rank=3)
    again = load_recipe(tmp_path / "one" / "recipe.yaml")
    pair.export(tmp_path / "two", again, rank=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    stated = read_manifest(tmp_path / "two")["sources"]
    assert [entry["name"] for entry in stated] == ["first", "base"]
    entries = again.evomerge["sources"]
    entries[1]["sha256"]["model.safetensors"] = 64 * "0"
    changed = again.with_block(sources=entries)
    assert "base: model.safetensors is not the one" in refused(pair, changed, rank=3)


def test_end_tokens_of_the_merge_are_said_because_an_adapter_has_none(
    pair: Pair, tmp_path: Path
) -> None:
    recipe = pair.recipe(evomerge={"generation": {"eos_token_id": [2, 5]}})
    [note] = merge_recipe(recipe, tmp_path / "out", as_adapter=True).notes
    assert "give eos_token_id: [2, 5] when you generate" in note


def test_a_folder_has_all_that_rebuilds_it_and_the_same_bytes_again(
    pair: Pair, tmp_path: Path
) -> None:
    pair.export(tmp_path / "one", ties(pair), rank=5)
    pair.export(tmp_path / "two", ties(pair), rank=5)
    files = contents(tmp_path / "one")
    assert files == contents(tmp_path / "two")
    assert {"adapter_config.json", "recipe.yaml", "README.md", "tokenizer.json"} <= files.keys()
    assert not changed_files(tmp_path / "one")
    assert len({path.stat().st_mode for path in (tmp_path / "one").iterdir()}) == 1
    card = files["README.md"].decode()
    assert "--as-adapter --rank 5" in card
    assert "mergekit document too, of which mergekit makes the merged checkpoint" in card
    assert "library_name: peft" in card and "base_model_relation: adapter" in card
    with pytest.raises(RunError, match="exists already"):
        pair.export(tmp_path / "one", ties(pair), rank=5)


def refused(pair: Pair, recipe: Recipe, rank: int | None = None) -> str:
    out = pair.folder / "out"
    with pytest.raises(InputError) as raised:
        merge_recipe(recipe, out, as_adapter=True, rank=rank)
    assert not out.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_no_sum_of_adapters_needs_a_rank(pair: Pair, tmp_path: Path) -> None:
    assert "first is no adapter over" in refused(pair, ties(pair))
    assert "such as --rank 16" in refused(pair, ties(pair))
    elected = pair.recipe(merge_method="ties")
    assert "ties with these parameters changes" in refused(pair, elected)
    open_sum = pair.recipe(
        merge_method="linear", base_model=None, weights=(0.4, 0.9), parameters={"normalize": False}
    )
    assert "sum to 1.3 in lm_head.weight" in refused(pair, open_sum)
    save_adapter(pair.folder / "base", tmp_path / "dora", {**LLAMA, "use_dora": True})
    scaled = pair.recipe(models=[{"model": str(tmp_path / "dora"), "parameters": {"weight": 0.5}}])
    assert "is a DoRA adapter" in refused(pair, scaled)
    elsewhere = f"{pair.folder / 'first'}+{pair.adapter(1)}"
    other = pair.recipe(models=[{"model": elsewhere, "parameters": {"weight": 0.5}}])
    assert f"{elsewhere} is no adapter over" in refused(pair, other)
    assert not pair.export(tmp_path / "other", other, rank=3).exact


def test_what_no_adapter_can_hold_is_refused(pair: Pair, tmp_path: Path) -> None:
    assert "more than 32, the full rank" in refused(pair, ties(pair), rank=33)
    stacked = [
        {"sources": [{"model": pair.adapter(1), "layer_range": [0, 2]}]},
        {"sources": [{"model": pair.adapter(2), "layer_range": [1, 2]}]},
    ]
    deeper = {"merge_method": "passthrough", "slices": stacked, "out_dtype": "float32"}
    assert "not those of its base" in refused(pair, Recipe.model_validate(deeper))
    same = pair.recipe(models=[{"model": pair.base, "parameters": {"weight": 0.5}}])
    assert "nothing of" in refused(pair, same)
    save_adapter(pair.folder / "base", tmp_path / "words", LLAMA, rows=2)
    longer = {"merge_method": "passthrough", "models": [{"model": str(tmp_path / "words")}]}
    assert "vocab_size of the merge is not that of" in refused(pair, Recipe.model_validate(longer))
    nameless = Recipe.model_validate(
        {
            "merge_method": "linear",
            "models": [
                {"model": str(pair.folder / name), "parameters": {"weight": 0.5}}
                for name in ("first", "second")
            ],
        }
    )
    assert "base_model: the recipe names none" in refused(pair, nameless, rank=4)


def test_changes_that_are_too_large_for_float32_are_refused(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="makes infinity from finite tensors"):
        pair.export(tmp_path / "out", pair.recipe(weights=(1e300, 0.5)))
    values = load_file(Path(pair.adapter(1)) / "adapter_model.safetensors")
    shutil.copytree(pair.adapter(1), tmp_path / "steep")
    steep = {
        name: value * (1e-10 if ".lora_A." in name else 1e10) for name, value in values.items()
    }
    save_file(steep, tmp_path / "steep" / "adapter_model.safetensors")
    models = [{"model": str(tmp_path / "steep"), "parameters": {"weight": 1e30}}]
    with pytest.raises(MergeError, match="too large for LoRA factors in float32"):
        pair.export(tmp_path / "out", pair.recipe(models=models))
    assert not (tmp_path / "out").exists()


def test_a_norm_at_the_top_of_a_model_is_saved_with_all_that_peft_takes_for_it(
    tmp_path: Path,
) -> None:
    transformers.LlamaModel(ARCHITECTURES["llama"][1]()).save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    tensors = load_tensors(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "first")
    write_tensors(tmp_path / "first", {**tensors, "norm.weight": tensors["norm.weight"] + 0.5})
    models = [{"model": str(tmp_path / "first"), "parameters": {"weight": 0.6}}]
    document = {"merge_method": "task_arithmetic", "base_model": str(tmp_path / "base")}
    recipe = Recipe.model_validate({**document, "models": models})
    merge_recipe(recipe, tmp_path / "adapter", as_adapter=True, rank=2)
    model = transformers.LlamaModel.from_pretrained(tmp_path / "base")
    merged = PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload().state_dict()
    expected = {**tensors, "norm.weight": tensors["norm.weight"] + 0.3}
    agree({name: merged[name] for name in expected}, expected)


def test_tensors_that_no_module_of_peft_holds_are_named(tmp_path: Path) -> None:
    base = save_architecture(tmp_path / "base", "mixtral")
    save_fine_tuned(tmp_path / "first", of=base, seed=1)
    recipe = Recipe.model_validate(
        {
            "merge_method": "task_arithmetic",
            "base_model": str(base),
            "models": [{"model": str(tmp_path / "first"), "parameters": {"weight": 0.5}}],
        }
    )
    with pytest.raises(RecipeError, match=r"experts\.\S+ changes, and transformers joins it"):
        merge_recipe(recipe, tmp_path / "out", as_adapter=True, rank=4)
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_experts_that_counts_with_zero_changes_nothing(tmp_path: Path) -> None:
    base = save_architecture(tmp_path / "base", "mixtral")
    models = []
    for name, weight in (("block_sparse_moe.experts.0.w1", 0.0), ("self_attn.q_proj", 0.5)):
        folder = save_adapter(
            base, tmp_path / name, {"r": 2, "target_modules": ["q_proj"]}, architecture="mixtral"
        )
        file = folder / "adapter_model.safetensors"
        rows, columns = load_tensors(base)[f"model.layers.0.{name}.weight"].shape
        module = f"base_model.model.model.layers.0.{name}"
        factors = {"lora_A": torch.ones(2, columns), "lora_B": torch.ones(rows, 2)}
        save_file({f"{module}.{key}.weight": value for key, value in factors.items()}, file)
        models.append({"model": str(folder), "parameters": {"weight": weight}})
    document = {"merge_method": "task_arithmetic", "base_model": str(base), "models": models}
    recipe = Recipe.model_validate(document)
    facts = merge_recipe(recipe, tmp_path / "out", as_adapter=True).adapter
    assert facts is not None and (facts.exact, facts.modules) == (True, 1)

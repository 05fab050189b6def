"""Architectures of today: a merge is scored as plain transformers scores its export.

The whole list of transformers is tried by `benchmarks/architectures.py`; these are the ones that
people merge, and each is here for what it alone has: a way of naming or joining tensors, a kind of
layer, a past of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel

from benchmarks.tiny_configs import tiny_config
from evomerge.errors import SourceError
from evomerge.evaluate.engines.live_model import check_model
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.transformers.routed import check_routable
from evomerge.export.checkpoint import write_checkpoint
from evomerge.merge.engine import MergeEngine
from evomerge.recipe import Recipe
from evomerge.sources import open_source
from evomerge.vocabulary import TokenSettings
from tests.architectures import save_expert
from tests.checkpoints import word_tokenizer
from tests.evaluate.test_engine import continuation, generated, prompt
from tests.evaluate.test_live_model import words

TODAY: Mapping[str, tuple[str, str]] = {
    "Llama 4": ("llama4_text", "Llama4ForCausalLM"),
    "Qwen3.5 with experts": ("qwen3_5_moe_text", "Qwen3_5MoeForCausalLM"),
    "Qwen3-VL": ("qwen3_vl", "Qwen3VLForConditionalGeneration"),
    "Qwen3-VL with experts": ("qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration"),
    "Gemma 3n": ("gemma3n_text", "Gemma3nForCausalLM"),
    "Gemma 4": ("gemma4_text", "Gemma4ForCausalLM"),
    "gpt-oss": ("gpt_oss", "GptOssForCausalLM"),
    "GLM-4.5": ("glm4_moe", "Glm4MoeForCausalLM"),
    "DeepSeek V3": ("deepseek_v3", "DeepseekV3ForCausalLM"),
    "DeepSeek V4": ("deepseek_v4", "DeepseekV4ForCausalLM"),
    "Kimi Linear": ("kimi_linear", "KimiLinearForCausalLM"),
    "MiniMax M2": ("minimax_m2", "MiniMaxM2ForCausalLM"),
    "Mistral 3": ("mistral3", "Mistral3ForConditionalGeneration"),
    "Mistral 4": ("mistral4", "Mistral4ForCausalLM"),
    "Phi-4 multimodal": ("phi4_multimodal", "Phi4MultimodalForCausalLM"),
    "LFM3": ("lfm3", "Lfm3ForCausalLM"),
    "OLMo 3": ("olmo3", "Olmo3ForCausalLM"),
    "SmolLM3": ("smollm3", "SmolLM3ForCausalLM"),
}
"""Name -> type and class. Qwen3, Qwen3-Next, Granite, Nemotron-H, Falcon-H1, LFM2 and OLMo hybrids
are in `test_other_pasts` and `test_live_model`; Phi-4 is a Phi-3."""

NOT_SCORED: Mapping[str, tuple[str, str]] = {
    "ModernBERT": ("modernbert", "ModernBertForMaskedLM"),
    "Whisper": ("whisper", "WhisperForConditionalGeneration"),
}

ASKED = [continuation(words(3 + 5 * i, seed=i), 1 + i % 2) for i in range(3)]
PROMPTS = [prompt(words(3 + 4 * i, seed=i), limit_tokens=2 + i) for i in range(2)]


def save(folder: Path, name: str) -> list[Path]:
    """A base and an expert. Skips what the installed transformers does not have."""
    kind, architecture = {**TODAY, **NOT_SCORED}[name]
    if kind not in CONFIG_MAPPING or not hasattr(transformers, architecture):
        pytest.skip(f"transformers {transformers.__version__} has no {architecture}: {name}")
    config = tiny_config(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, architecture)(config).float()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder / "base")
    word_tokenizer().save_pretrained(folder / "base")
    return [folder / "base", save_expert(folder / "expert", of=folder / "base", seed=1)]


def merge(folders: list[Path], out: Path) -> tuple[MergeEngine, Recipe]:
    """Export a merge of a base and an expert."""
    base, expert = (str(folder) for folder in folders)
    sources = {name: open_source(name, where="test") for name in (base, expert)}
    recipe = Recipe.model_validate(
        {
            "merge_method": "task_arithmetic",
            "base_model": base,
            "models": [{"model": expert, "parameters": {"weight": 0.5}}],
        }
    )
    out.mkdir()
    write_checkpoint(recipe, sources, sources[base], out)
    return MergeEngine(sources), recipe


def load_plain(folder: Path, name: str) -> PreTrainedModel:
    """The export as plain transformers loads it, with no tensor missing or left over."""
    _, architecture = {**TODAY, **NOT_SCORED}[name]
    model, found = getattr(transformers, architecture).from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(found.values()), found
    loaded: PreTrainedModel = model.eval()
    return loaded


@pytest.mark.parametrize("name", TODAY)
def test_a_merge_is_scored_as_its_export(name: str, tmp_path: Path) -> None:
    folders = save(tmp_path, name)
    merging, recipe = merge(folders, tmp_path / "out")
    plain = load_plain(tmp_path / "out", name)
    source = open_source(str(folders[0]), where="test")
    check_model(source, trust_remote_code=False, settings=TokenSettings())
    engine = TransformersEngine(
        folders[0], tokenizer=word_tokenizer(), dtype="float32", config=source.config
    )
    engine.load(merging.execute(recipe, into=engine.destination))
    for request, (value, _) in zip(ASKED, engine.loglikelihood(ASKED), strict=True):
        ids = torch.from_numpy(request.tokens)
        with torch.no_grad():
            rows = plain(ids[None, :-1]).logits[0].double().log_softmax(-1)[-request.scored :]
        expected = float(rows.gather(1, ids[-request.scored :, None]).sum())
        assert value == pytest.approx(expected, abs=1e-4)
    for request, text in zip(PROMPTS, engine.generate(PROMPTS), strict=True):
        said = generated(plain, request.tokens.tolist(), max_new_tokens=request.limit_tokens)
        assert text == word_tokenizer().decode(said, skip_special_tokens=True)


@pytest.mark.parametrize("name", NOT_SCORED)
def test_what_does_not_continue_text_is_merged_and_refused_for_scoring(
    name: str, tmp_path: Path
) -> None:
    folders = save(tmp_path, name)
    merge(folders, tmp_path / "out")
    load_plain(tmp_path / "out", name)
    source = open_source(str(folders[0]), where="test")
    with pytest.raises(SourceError, match="cannot be scored, tasks need a model that continues"):
        check_model(source, trust_remote_code=False, settings=TokenSettings())


def test_routes_move_layers_of_a_large_gemma_4_and_not_of_one_with_tables_by_layer(
    tmp_path: Path,
) -> None:
    """The small ones have embeddings for each layer, in one table that is as wide as all layers."""
    tables = open_source(str(save(tmp_path / "small", "Gemma 4")[0]), where="test")
    with pytest.raises(SourceError, match="depends on the number of layers, so routes cannot move"):
        check_routable(tables, trust_remote_code=False, settings=TokenSettings())
    config = tiny_config("gemma4_text")
    config.hidden_size_per_layer_input = 0
    transformers.Gemma4ForCausalLM(config).save_pretrained(tmp_path / "large")
    plain = open_source(str(tmp_path / "large"), where="test")
    check_routable(plain, trust_remote_code=False, settings=TokenSettings())

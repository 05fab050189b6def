"""Whatever the architecture: its embeddings, heads and their biases are found and grown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from tests.architectures import ARCHITECTURES, ROWS, load_whole, save_architecture
from tests.checkpoints import load_tensors
from tests.vocabulary.models import merge_here, word_tokenizer

WORDS = ("<pad>", "<s>", "</s>", "<unk>", *(f"word{number}" for number in range(ROWS - 4)))
ADDED = ["<a>", "<b>"]


def save_grown(folder: Path, base: Path, name: str) -> Path:
    """The base with rows for two tokens more, as transformers adds them, and all of it changed."""
    model = getattr(transformers, ARCHITECTURES[name][0]).from_pretrained(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model.resize_token_embeddings(ROWS + len(ADDED), mean_resizing=False)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    word_tokenizer(WORDS, ADDED).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_merge_of_the_expert_alone_in_the_union_is_the_expert(name: str, tmp_path: Path) -> None:
    base = save_architecture(tmp_path / "base", name)
    word_tokenizer(WORDS).save_pretrained(base)
    expert = save_grown(tmp_path / "expert", base, name)
    document = {
        "merge_method": "linear",
        "models": [
            {"model": str(base), "parameters": {"weight": 0.0}},
            {"model": str(expert), "parameters": {"weight": 1.0}},
        ],
        "tokenizer": {"source": "union"},
        "dtype": "float32",
    }
    out = merge_here(document, tmp_path / "out")
    wanted, found = load_tensors(expert), load_tensors(out)
    assert sorted(found) == sorted(wanted)
    assert all(torch.equal(found[each], tensor) for each, tensor in wanted.items())
    model = load_whole(out, name)
    assert model.get_input_embeddings().weight.shape[0] == ROWS + len(ADDED)


def test_the_language_tower_of_a_vision_language_model_learns_an_expert_s_tokens(
    tmp_path: Path,
) -> None:
    whole = save_architecture(tmp_path / "whole", "llava")
    word_tokenizer(WORDS).save_pretrained(whole)
    language = save_architecture(tmp_path / "language", "llama", seed=2)
    expert = save_grown(tmp_path / "expert", language, "llama")
    document = {
        "merge_method": "linear",
        "models": [
            {"model": str(whole), "parameters": {"weight": 0.25}},
            {"model": str(expert), "parameters": {"weight": 0.75}},
        ],
        "tokenizer": {"source": "union"},
        "dtype": "float32",
    }
    model = load_whole(merge_here(document, tmp_path / "out"), "llava")
    rows = model.get_input_embeddings().weight
    before = load_whole(whole, "llava").get_input_embeddings().weight
    given = load_whole(expert, "llama").get_input_embeddings().weight
    assert torch.allclose(rows[:ROWS], 0.25 * before + 0.75 * given[:ROWS], rtol=0, atol=1e-6)
    # The vision-language model lacks them, so it is given the expert's rows.
    assert torch.allclose(rows[ROWS:], given[ROWS:], rtol=0, atol=1e-6)
    assert model.config.text_config.vocab_size == ROWS + len(ADDED)

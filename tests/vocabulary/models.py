"""Tiny Llamas of one family whose vocabularies differ, and merges of them by both programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.export import merge_recipe
from evomerge.recipe import read_recipe
from tests.checkpoints import load_tensors

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
_TEXT = "one two three four five six seven plus minus is"
WORDS = (*SPECIALS, *_TEXT.split())
HIDDEN = 16

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def word_tokenizer(
    words: Sequence[str], added: Sequence[str | AddedToken] = (), *, eos: str = "</s>"
) -> PreTrainedTokenizerFast:
    """Words split at white space; `added` stand beside them, as fine-tuning adds tokens."""
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=eos,
        unk_token="<unk>",
        model_max_length=64,
    )
    wrapped.add_tokens(list(added))
    return wrapped


def save_model(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast | None,
    *,
    seed: int,
    rows: int | None = None,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Path:
    """A random Llama; rows: of its embeddings, as many as the tokenizer has tokens if not given."""
    config = LlamaConfig(
        vocab_size=rows or len(tokenizer or ()),
        hidden_size=HIDDEN,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **settings},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, *, seed: int = 0) -> Path:
    """A LoRA adapter over the base, as PEFT saves one, without a tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    place = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{place}.lora_A.weight": torch.randn((2, HIDDEN), generator=generator),
        f"{place}.lora_B.weight": torch.randn((HIDDEN, 2), generator=generator),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@dataclass(frozen=True)
class Family:
    base: Path
    first: Path
    second: Path

    def document(self, **changes: Any) -> dict[str, Any]:
        """A merge of the experts over the base."""
        return {
            "merge_method": "task_arithmetic",
            "base_model": str(self.base),
            "models": [
                {"model": str(self.first), "parameters": {"weight": 0.7}},
                {"model": str(self.second), "parameters": {"weight": 0.45}},
            ],
            "dtype": "float32",
            **changes,
        }


def make_family(folder: Path, *, tied: bool = False, dtype: torch.dtype = torch.float32) -> Family:
    """A base; an expert with three more tokens; one with two of those in another order, one more,
    a word that is none of the base's own, and rows that are no token's.
    """
    chat = AddedToken("<chat>", special=True)
    first = word_tokenizer(WORDS, ["<a>", chat, "<b>"])
    second = word_tokenizer([*WORDS[:4], "eight", *WORDS[4:]], [chat, "<c>", "<a>"])
    options: dict[str, Any] = {"tied": tied, "dtype": dtype}
    return Family(
        base=save_model(folder / "base", word_tokenizer(WORDS), seed=0, **options),
        first=save_model(folder / "first", first, seed=1, **options),
        second=save_model(folder / "second", second, seed=2, rows=24, **options),
    )


def merge_here(document: Mapping[str, Any], out: Path) -> Path:
    merge_recipe(read_recipe(yaml.safe_dump(dict(document)), where="recipe.yaml"), out)
    return out


def merge_by_mergekit(document: Mapping[str, Any], out: Path) -> Path:
    configuration = MergeConfiguration.model_validate(dict(document))
    run_merge(configuration, str(out), MergeOptions(quiet=True, write_model_card=False))
    return out


def rows_by_token(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """token -> its row; mergekit numbers the tokens of several models in any order."""
    tensor = load_tensors(folder)[name]
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    return {token: tensor[row] for token, row in vocabulary.items()}


def config_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return document

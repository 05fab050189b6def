"""Tiny random checkpoints, saved the way transformers saves real ones.

Everything is made on the spot from a seed: no file of the repository and no network is read.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
_TEXT = """
0 1 2 3 4 5 6 7 8 9 + - * / = ( ) . , : ; ? ! A B C D
the a one two three four five six seven eight nine ten zero
is are plus minus times and or not yes no true false equals
question answer word number cat dog bird tree red blue green big small
what which who how many much more less than of in on to from
"""
WORDS = (*SPECIALS, *_TEXT.split())
"""The whole vocabulary, in order of token id; words are split at white space."""


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over WORDS with padding, beginning, end and unknown tokens."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=256,
    )


def save_tiny_llama(
    folder: Path,
    *,
    seed: int,
    layers: int = 4,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    hidden: int = 32,
    vocabulary: int = len(WORDS),
) -> Path:
    """Save a random Llama with its tokenizer and return its folder.

    shards: 1 writes `model.safetensors`; more writes about that many shards and an index.
    vocabulary: rows of the embeddings; the tokenizer always knows WORDS.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        pad_token_id=WORDS.index("<pad>"),
        bos_token_id=WORDS.index("<s>"),
        eos_token_id=WORDS.index("</s>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(dtype)
    _save(model, folder, shards=shards)
    return folder


def save_fine_tuned(
    folder: Path, *, of: Path, seed: int, scale: float = 0.02, shards: int = 1
) -> Path:
    """Save the checkpoint `of` with normal noise of deviation `scale` on every tensor.

    A stand-in for a model fine-tuned from `of`: same structure, tokenizer and storage dtype.
    """
    model = AutoModelForCausalLM.from_pretrained(of)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter.float() + scale * noise)
    _save(model, folder, shards=shards)
    return folder


def _save(model: PreTrainedModel, folder: Path, *, shards: int) -> None:
    total_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    largest_bytes = max(p.numel() * p.element_size() for p in model.parameters())
    shard_bytes = max(largest_bytes, -(-total_bytes // shards)) if shards > 1 else 2**40
    model.save_pretrained(folder, max_shard_size=shard_bytes)
    word_tokenizer().save_pretrained(folder)


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint by its name in the files."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors


def replace_tensors(folder: Path, changed: dict[str, torch.Tensor | None]) -> None:
    """Rewrite a single-file checkpoint with some tensors changed, added, or (None) left out."""
    tensors = {**load_tensors(folder), **changed}
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

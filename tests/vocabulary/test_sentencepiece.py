"""A tokenizer that is a SentencePiece model alone, as older models come with."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece
import yaml
from transformers import AutoTokenizer

from evomerge.errors import SourceError
from evomerge.export import merge_recipe
from evomerge.recipe import read_recipe
from evomerge.sources import open_source
from evomerge.vocabulary import TokenizerReader
from tests.checkpoints import WORDS, save_tiny_llama

TEXT = "the cat is red and the dog is blue"


@pytest.fixture(scope="module")
def trained() -> bytes:
    """A model of as many pieces as the tiny models have rows, trained on all their words."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS[4:]), TEXT] * 20),
        model_writer=written,
        vocab_size=len(WORDS),
        model_type="bpe",
        minloglevel=2,
    )
    return written.getvalue()


def with_pieces(folder: Path, pieces: bytes, *, seed: int = 0) -> Path:
    """A tiny model whose tokenizer is this file."""
    save_tiny_llama(folder, seed=seed)
    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "tokenizer.model").write_bytes(pieces)
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_it_is_read_as_sentencepiece_reads_it(trained: bytes, tmp_path: Path) -> None:
    source = open_source(str(with_pieces(tmp_path / "model", trained)), where="models")
    tokenizer = TokenizerReader().load(source)
    processor = sentencepiece.SentencePieceProcessor(model_proto=trained)
    assert tokenizer(TEXT, add_special_tokens=False).input_ids == processor.encode(TEXT)


@pytest.mark.parametrize("tokenizer", [None, "union"])
def test_a_merge_has_it(trained: bytes, tmp_path: Path, tokenizer: str | None) -> None:
    models = [with_pieces(tmp_path / f"model{seed}", trained, seed=seed) for seed in (1, 2)]
    document = {
        "merge_method": "linear",
        "models": [{"model": str(model), "parameters": {"weight": 0.5}} for model in models],
        **({} if tokenizer is None else {"tokenizer": {"source": tokenizer}}),
    }
    merge_recipe(read_recipe(yaml.safe_dump(document), where="recipe.yaml"), tmp_path / "merged")
    before, after = (
        AutoTokenizer.from_pretrained(folder)(TEXT).input_ids
        for folder in (models[0], tmp_path / "merged")
    )
    assert after == before


def test_a_damaged_one_is_named(trained: bytes, tmp_path: Path) -> None:
    """Transformers takes it for tiktoken's and asks for that, which would not read it either."""
    source = open_source(str(with_pieces(tmp_path / "model", trained[:500])), where="models")
    with pytest.raises(
        SourceError, match=r"tokenizer\.model is not a SentencePiece model"
    ) as raised:
        TokenizerReader().load(source)
    assert "tiktoken" not in str(raised.value)

"""What PEFT can change in the modules of a model."""

from __future__ import annotations

import pytest
import transformers

from evomerge.export.peft_modules import PeftModules

SIZES = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
OPT = {**SIZES, "word_embed_proj_dim": 8, "ffn_dim": 8, "tie_word_embeddings": False}
GEMMA = {**SIZES, "intermediate_size": 8, "head_dim": 4, "num_key_value_heads": 1}


@pytest.mark.parametrize(
    ("kind", "settings", "tensor", "expected"),
    [
        ("OPT", OPT, "model.decoder.embed_tokens.weight", "embedding"),
        ("OPT", OPT, "model.decoder.embed_positions.weight", "whole"),  # rows by another number
        (
            "Gemma3Text",
            {**GEMMA, "tie_word_embeddings": False},
            "model.embed_tokens.weight",
            "embedding",  # scaled, and PEFT scales the factors too
        ),
    ],
)
def test_embeddings_take_factors_where_they_give_the_rows_of_their_tokens(
    kind: str, settings: dict[str, object], tensor: str, expected: str
) -> None:
    architecture = {"OPT": "OPTForCausalLM", "Gemma3Text": "Gemma3ForCausalLM"}[kind]
    config = getattr(transformers, f"{kind}Config")(**settings, architectures=[architecture])
    assert PeftModules(config.to_dict(), code=None).place(tensor).kind == expected

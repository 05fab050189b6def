"""Every row of a merge over different vocabularies is the one that mergekit computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.checkpoints import load_tensors
from tests.vocabulary.models import (
    EMBEDDING,
    HEAD,
    Family,
    config_of,
    make_family,
    merge_by_mergekit,
    merge_here,
    rows_by_token,
)

# Of the largest value of a tensor: both sides round each product and sum to float32, in different
# orders.
TOLERANCE = 1e-6


def assert_equal_merges(document: dict[str, Any], folder: Path) -> None:
    ours = merge_here(document, folder / "ours")
    theirs = merge_by_mergekit(document, folder / "theirs")
    expected, found = load_tensors(theirs), load_tensors(ours)
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape, name
        allowed = TOLERANCE * float(tensor.abs().max())
        if name not in (EMBEDDING, HEAD):
            assert float((found[name] - tensor).abs().max()) <= allowed, name
            continue
        rows, wanted = rows_by_token(ours, name), rows_by_token(theirs, name)
        assert sorted(rows) == sorted(wanted)
        for token, row in wanted.items():
            assert float((rows[token] - row).abs().max()) <= allowed, (name, token)
        beyond = len(rows)
        assert torch.allclose(found[name][beyond:], tensor[beyond:], rtol=0, atol=allowed)
    assert config_of(ours)["vocab_size"] == config_of(theirs)["vocab_size"]
    kept, theirs_kept = AutoTokenizer.from_pretrained(ours), AutoTokenizer.from_pretrained(theirs)
    settings = [
        {token.content: token for token in each.added_tokens_decoder.values()}
        for each in (kept, theirs_kept)
    ]
    assert settings[0] == settings[1]


def tokens_of(family: Family, *, force: bool) -> dict[str, Any]:
    """A source of each kind: a model, its token by text and by id, zeros, and one token more."""
    first, second = str(family.first), str(family.second)
    return {
        "<a>": {"source": second, "force": force},
        "<b>": {"source": {"kind": "zero"}, "force": force},
        "<c>": {"source": {"kind": "model_token", "model": first, "token": "two"}, "force": force},
        "six": {"source": {"kind": "model_token", "model": second, "token_id": 7}, "force": force},
        "<new>": {"source": {"kind": "model_token", "model": first, "token": "one"}},
    }


@pytest.mark.parametrize("wanted", ["union", "base", "first", "second"])
@pytest.mark.parametrize("form", ["tokenizer", "tokenizer_source"])
def test_the_tokenizer_of_all_of_the_base_and_of_a_model(
    family: Family, tmp_path: Path, wanted: str, form: str
) -> None:
    source = str(getattr(family, wanted)) if wanted in ("first", "second") else wanted
    asked = {"source": source} if form == "tokenizer" else source
    assert_equal_merges(family.document(**{form: asked}), tmp_path)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("wanted", ["union", "base", "second"])
def test_rows_that_the_recipe_states(
    family: Family, tmp_path: Path, force: bool, wanted: str
) -> None:
    tokens = tokens_of(family, force=force)
    if wanted == "base":  # mergekit fails on a token that its base lacks
        tokens = {"six": tokens["six"]}
    source = str(family.second) if wanted == "second" else wanted
    tokenizer = {"source": source, "tokens": tokens}
    assert_equal_merges(family.document(tokenizer=tokenizer), tmp_path)


@pytest.mark.parametrize("multiple", [1, 8, 64])
def test_rows_filled_up_to_a_multiple(family: Family, tmp_path: Path, multiple: int) -> None:
    tokenizer = {"source": "union", "pad_to_multiple_of": multiple}
    assert_equal_merges(family.document(tokenizer=tokenizer), tmp_path)


def test_a_merge_whose_base_lacks_what_several_have(family: Family, tmp_path: Path) -> None:
    """<a> and <chat> are in both experts and not in the base, so it is given their mean."""
    document = family.document(tokenizer={"source": "union"})
    del document["base_model"]
    models = [{"model": str(family.base), "parameters": {"weight": 0.3}}, *document["models"]]
    # Without a base mergekit starts from any of the models, so the tokenizer is named.
    tokenizer = {"source": str(family.first)}
    assert_equal_merges(
        {**document, "merge_method": "linear", "models": models, "tokenizer": tokenizer}, tmp_path
    )


def test_embeddings_that_are_the_head_too(tmp_path: Path) -> None:
    family = make_family(tmp_path / "models", tied=True)
    tokenizer = {"source": "union", "tokens": tokens_of(family, force=True)}
    assert_equal_merges(family.document(tokenizer=tokenizer), tmp_path)


def test_models_stored_in_bfloat16(tmp_path: Path) -> None:
    family = make_family(tmp_path / "models", dtype=torch.bfloat16)
    tokenizer = {"source": "union", "pad_to_multiple_of": 8}
    assert_equal_merges(family.document(tokenizer=tokenizer, out_dtype="float32"), tmp_path)


def test_a_method_that_is_not_linear(family: Family, tmp_path: Path) -> None:
    models = [
        {"model": str(family.first), "parameters": {"weight": 0.7, "density": 0.6}},
        {"model": str(family.second), "parameters": {"weight": 0.45, "density": 0.5}},
    ]
    document = family.document(merge_method="ties", models=models, tokenizer={"source": "union"})
    ours = merge_here(document, tmp_path / "ours")
    theirs = merge_by_mergekit(document, tmp_path / "theirs")
    for name in (EMBEDDING, HEAD):
        rows, wanted = rows_by_token(ours, name), rows_by_token(theirs, name)
        assert all(torch.allclose(rows[token], row, atol=1e-6) for token, row in wanted.items())

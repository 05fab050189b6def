"""The tokenizer of an exported folder, and that the configurations beside it agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.errors import SourceError
from evomerge.export.checkpoint import copy_tokenizer, write_generation_config
from evomerge.sources import open_source
from tests.checkpoints import load_tensors
from tests.export.conftest import contents
from tests.vocabulary.models import (
    EMBEDDING,
    HEAD,
    WORDS,
    Family,
    config_of,
    make_family,
    merge_by_mergekit,
    merge_here,
    rows_by_token,
    save_adapter,
    save_model,
    word_tokenizer,
)

TEXT = "one <chat> plus eight <a> is <b> <c>"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Shared and never changed."""
    return make_family(tmp_path_factory.mktemp("vocabularies"))


@pytest.fixture(scope="module")
def exported(models: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    document = models.document(tokenizer={"source": "union", "pad_to_multiple_of": 8})
    return merge_here(document, tmp_path_factory.mktemp("exported") / "union")


def test_the_union_encodes_and_decodes_the_words_of_every_model(exported: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported)
    ids = tokenizer(TEXT).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == TEXT
    assert (
        tokenizer.decode(ids, skip_special_tokens=True).split()
        == TEXT.replace("<chat> ", "").split()
    )


def test_configuration_weights_and_tokenizer_agree(exported: Path) -> None:
    tokenizer, config = AutoTokenizer.from_pretrained(exported), config_of(exported)
    generation = json.loads((exported / "generation_config.json").read_text())
    tensors = load_tensors(exported)
    assert config["vocab_size"] == 24 == tensors[EMBEDDING].shape[0] == tensors[HEAD].shape[0]
    assert len(tokenizer) == max(tokenizer.get_vocab().values()) + 1 <= config["vocab_size"]
    for said in (config, generation):
        for name in ("bos", "eos", "pad"):
            assert said[f"{name}_token_id"] == getattr(tokenizer, f"{name}_token_id")


def test_plain_transformers_generates_with_it(exported: Path) -> None:
    model, info = AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
    assert not any(info.values()), info
    tokenizer = AutoTokenizer.from_pretrained(exported)
    ids = torch.tensor([tokenizer(TEXT).input_ids])
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]


def test_the_exported_recipe_says_the_tokenizer_and_mergekit_executes_it(
    exported: Path, tmp_path: Path
) -> None:
    document = yaml.safe_load((exported / "recipe.yaml").read_text())
    assert document["tokenizer"] == {"source": "union", "pad_to_multiple_of": 8}
    theirs = merge_by_mergekit(document, tmp_path / "theirs")
    for name in (EMBEDDING, HEAD):
        rows, wanted = rows_by_token(exported, name), rows_by_token(theirs, name)
        assert sorted(rows) == sorted(wanted)
        # Both sides round each product and sum to float32, in different orders.
        assert all(torch.allclose(rows[token], row, atol=1e-6) for token, row in wanted.items())


def test_two_exports_are_equal_to_the_byte_and_name_no_path(
    models: Family, exported: Path, tmp_path: Path
) -> None:
    document = models.document(tokenizer={"source": "union", "pad_to_multiple_of": 8})
    again = contents(merge_here(document, tmp_path / "again"))
    assert again == contents(exported)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "manifest.json"):
        assert str(models.base.parent).encode() not in again[name]
        assert str(exported).encode() not in again[name]


@pytest.mark.parametrize("wanted", ["base", "second"])
def test_a_model_s_own_tokenizer_is_copied_byte_by_byte(
    models: Family, tmp_path: Path, wanted: str
) -> None:
    folder: Path = getattr(models, wanted)
    source = "base" if wanted == "base" else str(folder)
    out = merge_here(models.document(tokenizer={"source": source}), tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_an_adapter_s_tokenizer_is_its_base_s_where_it_has_none(
    models: Family, tmp_path: Path
) -> None:
    adapter = open_source(str(save_adapter(tmp_path / "adapter", models.base)), where="test")
    (tmp_path / "out").mkdir()
    copy_tokenizer(adapter, tmp_path / "out")
    written = tmp_path / "out" / "tokenizer.json"
    assert written.read_bytes() == (models.base / "tokenizer.json").read_bytes()


def test_a_tokenizer_with_another_end_ends_generation(tmp_path: Path) -> None:
    """The base's configurations are written, and the end is the tokenizer's."""
    chat = word_tokenizer([*WORDS[:4], "<end>", *WORDS[4:]], eos="<end>")
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    expert = save_model(tmp_path / "expert", chat, seed=1, eos_token_id=4)
    document = {
        "merge_method": "linear",
        "base_model": str(base),
        "models": [{"model": str(each), "parameters": {"weight": 0.5}} for each in (base, expert)],
        "tokenizer": {"source": str(expert)},
        "dtype": "float32",
    }
    out = merge_here(document, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.eos_token == "<end>"
    assert config_of(out)["eos_token_id"] == tokenizer.eos_token_id
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_generation_config_that_agrees_is_copied_byte_by_byte(
    models: Family, tmp_path: Path
) -> None:
    write_generation_config(open_source(str(models.base), where="test"), tmp_path)
    name = "generation_config.json"
    assert (tmp_path / name).read_bytes() == (models.base / name).read_bytes()


@pytest.mark.parametrize("text", ["[]", "{", "null", "[" * 100_000])
@pytest.mark.parametrize("name", ["tokenizer.json", "added_tokens.json"])
def test_a_damaged_tokenizer_is_refused_before_a_merge_is_written(
    tmp_path: Path, name: str, text: str
) -> None:
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    expert = save_model(tmp_path / "expert", word_tokenizer(WORDS), seed=1)
    (base / name).write_text(text)
    document = {
        "merge_method": "linear",
        "models": [{"model": str(each), "parameters": {"weight": 0.5}} for each in (base, expert)],
        "dtype": "float32",
    }
    with pytest.raises(SourceError, match=f"base: {name}"):
        merge_here(document, tmp_path / "out")
    assert not (tmp_path / "out").exists()

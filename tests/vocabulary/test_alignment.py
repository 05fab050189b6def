"""Models seen with one vocabulary: what changes in them, what does not, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken
from transformers import AutoTokenizer

from evomerge.errors import RecipeError, SourceError
from evomerge.recipe import Recipe
from evomerge.sources import Source, check_compatible, open_source
from evomerge.vocabulary import AlignedSource, Alignment, align, settings_of, vocabulary_models
from evomerge.vocabulary.tokenizers import add_union, tokens_of
from tests.checkpoints import load_tensors
from tests.vocabulary.models import (
    EMBEDDING,
    HEAD,
    HIDDEN,
    WORDS,
    Family,
    make_family,
    save_model,
    word_tokenizer,
)

TEMPLATE = "{{ messages }} and more text"


def opened(*folders: Path) -> dict[str, Source]:
    return {str(folder): open_source(str(folder), where="models") for folder in folders}


def recipe_of(sources: Mapping[str, Source], **fields: Any) -> Recipe:
    names = list(sources)
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in names[1:]]
    document = {"merge_method": "task_arithmetic", "base_model": names[0], "models": models}
    return Recipe.model_validate({**document, **fields})


def aligned(*folders: Path, **fields: Any) -> Alignment:
    sources = opened(*folders)
    return align(recipe_of(sources, **fields), sources)


def of_family(family: Family, **fields: Any) -> Alignment:
    return aligned(family.base, family.first, family.second, **fields)


def test_models_that_agree_come_back_as_they_are(tmp_path: Path) -> None:
    same = [
        save_model(tmp_path / name, word_tokenizer(WORDS, ["<a>"]), seed=seed)
        for seed, name in enumerate(("base", "first"))
    ]
    sources = opened(*same)
    for source in ("union", "base", str(same[1])):
        found = align(recipe_of(sources, tokenizer={"source": source}), sources)
        assert all(found.sources[name] is sources[name] for name in sources)
        assert found.tokenizer_source is sources[source if source in sources else str(same[0])]


def test_without_a_wish_no_tokenizer_is_read(family: Family) -> None:
    found = of_family(family)
    assert found.tokenizer is None
    assert not any(isinstance(source, AlignedSource) for source in found.sources.values())


def test_only_tensors_with_a_row_a_token_change(family: Family) -> None:
    before = opened(family.base, family.first, family.second)
    for name, source in of_family(family, tokenizer={"source": "union"}).sources.items():
        shapes = before[name].structure.shapes
        changed = [each for each in shapes if source.structure.shapes[each] != shapes[each]]
        assert changed in ([EMBEDDING, HEAD], [HEAD, EMBEDDING])
        for each in shapes:
            tensor = source.tensor(each)
            assert tuple(tensor.shape) == source.structure.shapes[each]
            if each not in changed:
                assert torch.equal(tensor, before[name].tensor(each))
        assert (source.files, source.sha256()) == (before[name].files, before[name].sha256())


def test_the_aligned_models_fit_each_other(family: Family) -> None:
    sources = list(of_family(family, tokenizer={"source": "union"}).sources.values())
    with pytest.raises(SourceError):
        check_compatible(list(opened(family.base, family.first).values()))
    structure = check_compatible(sources)
    assert all(source.config["vocab_size"] == structure.shapes[HEAD][0] for source in sources)


def test_biases_of_the_head_are_moved_too(tmp_path: Path) -> None:
    folders = []
    for seed, added in enumerate(([], ["<a>"])):
        folder = save_model(tmp_path / str(seed), word_tokenizer(WORDS, added), seed=seed)
        tensors = load_tensors(folder)
        bias = torch.arange(float(len(tensors[HEAD])))
        # Outside the layers, yet of another length: no token's.
        save_file(
            {**tensors, "lm_head.bias": bias, "model.norm.bias": torch.zeros(HIDDEN)},
            folder / "model.safetensors",
        )
        folders.append(folder)
    found = aligned(*folders, tokenizer={"source": "union"}).sources[str(folders[0])]
    # The last row is the expert's, which alone has the token.
    expected = [*range(len(WORDS)), float(len(WORDS))]
    assert found.tensor("lm_head.bias").tolist() == expected
    assert found.tensor("model.norm.bias").shape == (HIDDEN,)


def test_rows_that_no_token_has_are_dropped_without_a_copy(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0, rows=32)
    expert = save_model(tmp_path / "expert", word_tokenizer(WORDS), seed=1, rows=32)
    sources = opened(base, expert)
    found = align(recipe_of(sources, tokenizer={"source": "base"}), sources)
    for name, source in sources.items():
        tensor = found.sources[name].tensor(EMBEDDING)
        assert torch.equal(tensor, source.tensor(EMBEDDING)[: len(WORDS)])
        assert tensor.data_ptr() == source.tensor(EMBEDDING).data_ptr()


def test_an_embedding_is_kept_until_the_next_is_asked_for(family: Family) -> None:
    source = of_family(family, tokenizer={"source": "union"}).sources[str(family.second)]
    first = source.tensor(EMBEDDING)
    assert source.tensor(EMBEDDING) is first
    source.tensor("model.norm.weight")
    assert source.tensor(EMBEDDING) is first
    source.tensor(HEAD)
    assert source.tensor(EMBEDDING) is not first


def test_rows_keep_the_stored_dtype_unless_they_are_means(tmp_path: Path) -> None:
    family = make_family(tmp_path, dtype=torch.bfloat16)
    whole = of_family(family, tokenizer={"source": str(family.second)})
    exact = aligned(family.base, family.second, tokenizer={"source": "union"})
    dtypes = {name: source.tensor(EMBEDDING).dtype for name, source in exact.sources.items()}
    assert set(dtypes.values()) == {torch.bfloat16}
    # <a> and <chat> are means of the experts' rows there.
    assert whole.sources[str(family.base)].tensor(EMBEDDING).dtype == torch.float32


def test_a_model_without_a_tokenizer_has_the_base_s(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", word_tokenizer(WORDS, ["<a>"]), seed=0)
    bare = save_model(tmp_path / "bare", None, seed=1, rows=len(WORDS) + 1)
    small = save_model(tmp_path / "small", None, seed=2, rows=len(WORDS))
    found = aligned(base, bare, small, tokenizer={"source": "union"})
    own = open_source(str(bare), where="models")
    assert torch.equal(found.sources[str(bare)].tensor(HEAD), own.tensor(HEAD))
    last = found.sources[str(small)].tensor(HEAD)[len(WORDS)]
    assert torch.equal(last, found.sources[str(base)].tensor(HEAD)[len(WORDS)])


def test_a_tokenizer_that_cannot_be_loaded_is_refused_in_one_line(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    (family.first / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError) as caught:
        of_family(family, tokenizer={"source": "union"})
    assert str(caught.value).startswith(f"{family.first}: its tokenizer cannot be loaded (")
    assert "\n" not in str(caught.value)


def test_tokens_that_the_base_has_no_rows_for_are_left_out(tmp_path: Path) -> None:
    """Fine-tuning may save a token that the embeddings were never grown for."""
    base = save_model(
        tmp_path / "base", word_tokenizer(WORDS, ["<a>", "<b>"]), seed=0, rows=len(WORDS) + 1
    )
    expert = save_model(tmp_path / "expert", word_tokenizer(WORDS, ["<a>", "<c>"]), seed=1)
    for source, added in (("base", ["<a>"]), ("union", ["<a>", "<c>"])):
        found = aligned(base, expert, tokenizer={"source": source})
        assert found.tokenizer is not None
        assert sorted(found.tokenizer.get_vocab()) == sorted([*WORDS, *added])
        assert found.sources[str(base)].tensor(HEAD).shape[0] == len(WORDS) + len(added)


def test_the_union_is_numbered_the_same_every_time(family: Family) -> None:
    tokenizer = of_family(family, tokenizer={"source": "union"}).tokenizer
    assert tokenizer is not None
    added = [*WORDS, "eight", "<a>", "<chat>", "<b>", "<c>"]
    assert sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__) == added
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    assert special == [*WORDS[:4], "<chat>"]


def test_a_word_that_another_model_added_counts_as_added() -> None:
    words, added = [*WORDS, "nine", "mark"], ["<z>", AddedToken("mark", special=True)]
    models = [word_tokenizer(WORDS), word_tokenizer(words), word_tokenizer(WORDS, added)]
    add_union(models[0], [tokens_of(model, len(model)) for model in models])
    vocabulary = models[0].get_vocab()
    assert sorted(vocabulary, key=vocabulary.__getitem__) == [*WORDS, "nine", "<z>", "mark"]
    assert models[0].added_tokens_decoder[vocabulary["mark"]].special


def test_begin_end_and_padding_are_those_of_the_model_whose_tokenizer_it_is(
    tmp_path: Path,
) -> None:
    chat = word_tokenizer([*WORDS[:4], "<end>", *WORDS[4:]], eos="<end>")
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0, sep_token_id=5)
    expert = save_model(tmp_path / "expert", chat, seed=1, eos_token_id=4)
    generation = json.loads((expert / "generation_config.json").read_text())
    generation["eos_token_id"] = [4, 2]
    (expert / "generation_config.json").write_text(json.dumps(generation))
    found = aligned(base, expert, tokenizer={"source": str(expert)}).sources[str(base)]
    assert found.config["eos_token_id"] == 4
    assert settings_of(found).generation == {"eos_token_id": [4, 2]}
    # Another setting keeps its token, "two", which is a row further on.
    assert (WORDS[5], found.config["sep_token_id"]) == ("two", 6)


def test_a_setting_of_the_base_whose_token_the_result_lacks_is_refused(tmp_path: Path) -> None:
    words = word_tokenizer(WORDS, ["<image>"])
    base = save_model(tmp_path / "base", words, seed=0, image_token_id=len(WORDS))
    expert = save_model(tmp_path / "expert", word_tokenizer(WORDS), seed=1)
    with pytest.raises(SourceError, match=r"base: its image_token_id is '<image>', which the tok"):
        aligned(base, expert, tokenizer={"source": str(expert)})
    aligned(base, expert, tokenizer={"source": "union"})


def test_settings_of_a_nested_language_model_are_said_there(family: Family, tmp_path: Path) -> None:
    """As vision-language models keep them."""
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    config = json.loads((base / "config.json").read_text())
    text = {key: config[key] for key in ("vocab_size", "eos_token_id", "num_hidden_layers")}
    (base / "config.json").write_text(
        json.dumps({"architectures": config["architectures"], "text_config": text})
    )
    found = aligned(base, family.first, tokenizer={"source": "union"}).sources[str(base)]
    assert found.config["text_config"]["vocab_size"] == len(WORDS) + 3
    assert "vocab_size" not in found.config


def test_a_recipe_of_a_search_says_whose_tokens_count(family: Family) -> None:
    sources = opened(family.base, family.first, family.second)
    alone = {
        "merge_method": "linear",
        "models": [{"model": str(family.second), "parameters": {"weight": 1.0}}],
        "tokenizer": {"source": "union"},
    }
    recipe = Recipe.model_validate({**alone, "evomerge": {"vocabulary": list(sources)}})
    assert vocabulary_models(recipe) == tuple(sources)
    found, whole = align(recipe, sources), of_family(family, tokenizer={"source": "union"})
    name = str(family.second)
    for tensor in (EMBEDDING, HEAD):
        ours, theirs = (each.sources[name].tensor(tensor) for each in (found, whole))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("listed", [3, "base", {"base": 1}, [1]])
def test_a_list_of_models_that_is_none_is_refused(family: Family, listed: object) -> None:
    with pytest.raises(RecipeError, match=r"evomerge\.vocabulary: expected a list of models"):
        of_family(family, tokenizer={"source": "union"}, evomerge={"vocabulary": listed})


def test_what_is_saved_is_what_was_aligned_to(family: Family, tmp_path: Path) -> None:
    tokenizer = of_family(family, tokenizer={"source": "union"}, chat_template=TEMPLATE).tokenizer
    assert tokenizer is not None
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    text = "one <chat> plus eight <a> is <b>"
    assert again(text).input_ids == tokenizer(text).input_ids
    assert again.decode(again(text).input_ids) == text

"""Models that fit each other, those that do not, and which of them leads a merge."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from evomerge.errors import SourceError
from evomerge.sources import (
    Source,
    check_compatible,
    correspond,
    lead_of,
    open_source,
    shared_structure,
)
from tests.architectures import save_architecture, write_tensors
from tests.checkpoints import (
    WORDS,
    load_tensors,
    replace_tensors,
    save_fine_tuned,
    save_tiny_llama,
)
from tests.sources.conftest import change_config

Names = Mapping[str, str]


def opened(*folders: Path) -> list[Source]:
    return [open_source(str(folder), where="test") for folder in folders]


def test_models_of_one_base_fit(saved: Path, tmp_path: Path) -> None:
    tuned = save_fine_tuned(tmp_path / "tuned", of=saved, seed=1, shards=3)
    sources = [open_source(str(folder), where="test") for folder in (saved, tuned)]
    assert check_compatible(sources) is sources[0].structure
    assert check_compatible(sources[:1]) is sources[0].structure


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "depth": (lambda f: save_tiny_llama(f, seed=1, layers=3), "it has 3 layers, not 4"),
    "vocabulary": (
        lambda f: save_tiny_llama(f, seed=1, vocabulary=100),
        f"its vocab_size is 100, not {len(WORDS)}",
    ),
    "heads": (
        lambda f: change_config(save_tiny_llama(f, seed=1), num_attention_heads=8),
        "its num_attention_heads is 8, not 4",
    ),
    "tied": (
        lambda f: save_tiny_llama(f, seed=1, tied=True),
        "tie_word_embeddings is True there, not False",
    ),
    "architecture": (
        lambda f: change_config(save_tiny_llama(f, seed=1), architectures=["MistralForCausalLM"]),
        "its architecture is MistralForCausalLM, not LlamaForCausalLM",
    ),
    "shape": (
        lambda f: replace_tensors(
            save_tiny_llama(f, seed=1), {"model.layers.2.mlp.up_proj.weight": torch.zeros(65, 32)}
        ),
        "model.layers.2.mlp.up_proj.weight has shape [65, 32], not [64, 32]",
    ),
    "missing": (
        lambda f: replace_tensors(save_tiny_llama(f, seed=1), {"model.norm.weight": None}),
        "it has no tensor model.norm.weight",
    ),
    "extra": (
        lambda f: replace_tensors(save_tiny_llama(f, seed=1), {"model.extra": torch.zeros(3)}),
        "it has an extra tensor, model.extra",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_named_in_words(saved: Path, tmp_path: Path, case: str) -> None:
    make, difference = UNFIT[case]
    other = tmp_path / "other"
    make(other)
    sources = [open_source(str(folder), where="test") for folder in (saved, other)]
    expected = f"{other} does not fit {saved}: {difference}; merge only models fine-tuned"
    with pytest.raises(SourceError, match=re.escape(expected)):
        check_compatible(sources)


def test_rows_of_the_vocabulary_may_differ_where_that_is_asked_for(
    saved: Path, tmp_path: Path
) -> None:
    more = save_tiny_llama(tmp_path / "more", seed=1, vocabulary=len(WORDS) + 3)
    sources = opened(saved, more)
    assert check_compatible(sources, vocabularies_may_differ=True) is sources[0].structure
    replace_tensors(more, {"model.layers.0.mlp.up_proj.weight": torch.zeros(65, 32)})
    with pytest.raises(SourceError, match=r"up_proj\.weight has shape"):
        check_compatible(opened(saved, more), vocabularies_may_differ=True)
    replace_tensors(more, {"model.layers.0.mlp.up_proj.weight": torch.zeros(64, 32)})
    replace_tensors(more, {"lm_head.weight": torch.zeros(len(WORDS) + 3, 33)})
    with pytest.raises(SourceError, match=r"lm_head\.weight has shape"):
        check_compatible(opened(saved, more), vocabularies_may_differ=True)


def test_a_tied_head_may_be_stored_by_one_and_not_the_other(tmp_path: Path) -> None:
    plain = save_tiny_llama(tmp_path / "plain", seed=0, tied=True)
    stored = save_tiny_llama(tmp_path / "stored", seed=1, tied=True)
    embeddings = "model.embed_tokens.weight"
    replace_tensors(stored, {"lm_head.weight": load_tensors(stored)[embeddings].clone()})
    sources = opened(stored, plain)
    assert check_compatible(sources) is sources[0].structure
    assert check_compatible(sources[::-1]) is sources[1].structure
    with_head, without = (source.structure for source in sources)
    assert correspond(with_head, without)["lm_head.weight"] == embeddings
    assert correspond(without, with_head) == {name: name for name in without.shapes}
    assert shared_structure(sources).shapes == with_head.shapes
    assert shared_structure(sources[::-1]).shapes == without.shapes


def test_a_tied_head_stored_without_the_embeddings_is_no_second_name(tmp_path: Path) -> None:
    plain = save_tiny_llama(tmp_path / "plain", seed=0, tied=True)
    alone = save_tiny_llama(tmp_path / "alone", seed=1, tied=True)
    embeddings = "model.embed_tokens.weight"
    head = load_tensors(alone)[embeddings].clone()
    replace_tensors(alone, {"lm_head.weight": head, embeddings: None})
    with pytest.raises(SourceError, match=re.escape(f"it has no tensor {embeddings}")):
        check_compatible(opened(plain, alone))


def test_a_tied_language_model_that_stores_its_head_is_part_of_one_that_sees(
    tmp_path: Path,
) -> None:
    vision = save_architecture(tmp_path / "vision", "qwen2_vl")
    change_config(vision, tie_word_embeddings=True)
    config = json.loads((vision / "config.json").read_text(encoding="utf-8"))
    change_config(vision, text_config={**config["text_config"], "tie_word_embeddings": True})
    replace_tensors(vision, {"lm_head.weight": None})
    plain = save_architecture(tmp_path / "plain", "qwen2")
    change_config(plain, tie_word_embeddings=True)
    tensors = load_tensors(plain)
    replace_tensors(plain, {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    sources = opened(plain, vision)
    assert check_compatible(sources) is sources[1].structure


def test_a_setting_left_to_its_default_is_not_compared(saved: Path, tmp_path: Path) -> None:
    """Older versions of transformers wrote fewer of them."""
    older = save_tiny_llama(tmp_path / "older", seed=1)
    change_config(older, head_dim=None, num_key_value_heads=None)
    assert check_compatible(opened(saved, older))


# Vision-language models and the language models that they are merged with.

OLD_LLAVA: Names = {}  # as transformers 5 still saves it
NEW_LLAVA: Names = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.language_model.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}
OLD_QWEN2_VL: Names = {}
NEW_QWEN2_VL: Names = {"model.": "model.language_model.", "visual.": "model.visual."}
OTHER_PARENT: Names = {"model.": "thinker.text.model."}
LAYOUTS = {
    "llava": ("llava", "llama", OLD_LLAVA, "language_model."),
    "llava, as held in memory": ("llava", "llama", NEW_LLAVA, ""),
    "qwen2-vl": ("qwen2_vl", "qwen2", OLD_QWEN2_VL, ""),
    "qwen2-vl, as held in memory": ("qwen2_vl", "qwen2", NEW_QWEN2_VL, ""),
    "a parent never seen": ("qwen2_vl", "qwen2", OTHER_PARENT, ""),
}


def renamed(name: str, names: Names) -> str:
    for before, after in names.items():
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name


def save_renamed(folder: Path, architecture: str, names: Names) -> Path:
    save_architecture(folder, architecture)
    write_tensors(folder, {renamed(n, names): t for n, t in load_tensors(folder).items()})
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_language_model_has_its_place_in_a_vision_language_model(
    tmp_path: Path, layout: str
) -> None:
    whole, part, names, _ = LAYOUTS[layout]
    vision = save_renamed(tmp_path / "vision", whole, names)
    plain = save_architecture(tmp_path / "plain", part)
    sources = opened(plain, vision)
    assert lead_of(sources) is sources[1]
    assert check_compatible(sources) is sources[1].structure
    assert check_compatible(sources[::-1]) is sources[1].structure
    lead, other = sources[1].structure, sources[0].structure
    found = correspond(lead, other)
    assert list(found) == [name for name in lead.shapes if name in found]
    text = "language_model." if whole == "llava" else ""
    expected = {renamed(text + name, names): name for name in other.shapes}
    assert dict(found) == expected
    kept = [name for name in lead.shapes if name not in found]
    assert kept
    assert all("vis" in name or "projector" in name for name in kept)


def test_one_model_under_the_names_of_two_times_fits(tmp_path: Path) -> None:
    old = save_renamed(tmp_path / "old", "llava", OLD_LLAVA)
    new = save_renamed(tmp_path / "new", "llava", NEW_LLAVA)
    for lead, other in (opened(old, new), opened(new, old)):
        assert check_compatible([lead, other]) is lead.structure
        found = correspond(lead.structure, other.structure)
        names = NEW_LLAVA if lead.folder == old else {b: a for a, b in NEW_LLAVA.items()}
        assert found == {name: renamed(name, names) for name in lead.structure.shapes}


def test_models_of_equal_names_correspond_as_they_are(saved: Path) -> None:
    structure = opened(saved)[0].structure
    assert correspond(structure, structure) == {name: name for name in structure.shapes}


def unlike(folder: Path, **settings: object) -> Path:
    """A vision-language model whose language model differs from the plain one in a setting."""
    save_architecture(folder, "llava")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change_config(folder, text_config={**config["text_config"], **settings})
    return folder


MISFITS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "depth": (
        lambda f: save_tiny_llama(f, seed=0, layers=2, hidden=16, vocabulary=40),
        "it has 2 layers, not 3",
    ),
    "kind of layer": (
        lambda f: save_architecture(f, "qwen3"),
        "its architecture is Qwen3ForCausalLM, not LlavaForConditionalGeneration",
    ),
    "width": (
        lambda f: save_tiny_llama(f, seed=0, layers=3, vocabulary=40),
        "lm_head.weight has shape [40, 32], not [40, 16]",
    ),
    "vocabulary": (
        lambda f: save_tiny_llama(f, seed=0, layers=3, hidden=16),
        f"its vocab_size is {len(WORDS)}, not 40",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_language_model_of_another_shape_does_not_fit(tmp_path: Path, case: str) -> None:
    make, difference = MISFITS[case]
    vision = save_architecture(tmp_path / "vision", "llava")
    plain = make(tmp_path / "plain")
    expected = re.escape(f"{plain} does not fit {vision}: {difference}; merge only models")
    with pytest.raises(SourceError, match=expected):
        check_compatible(opened(vision, plain))


def test_a_language_model_with_other_heads_does_not_fit(tmp_path: Path) -> None:
    vision = unlike(tmp_path / "vision", num_attention_heads=2)
    plain = save_architecture(tmp_path / "plain", "llama")
    with pytest.raises(SourceError, match="its num_attention_heads is 4, not 2"):
        check_compatible(opened(vision, plain))


def test_another_architecture_with_more_in_its_layers_does_not_lead(tmp_path: Path) -> None:
    """A Qwen2 holds every tensor of a Llama of its shape, and biases beside them."""
    llama = save_architecture(tmp_path / "llama", "llama")
    change_config(llama, tie_word_embeddings=True)
    replace_tensors(llama, {"lm_head.weight": None})
    qwen = save_architecture(tmp_path / "qwen", "qwen2")
    sources = opened(llama, qwen)
    assert set(sources[0].structure.shapes) < set(sources[1].structure.shapes)
    assert lead_of(sources) is sources[0]
    with pytest.raises(SourceError, match="its architecture is Qwen2ForCausalLM"):
        check_compatible(sources)


def test_a_model_with_a_head_leads_the_same_without_one(tmp_path: Path) -> None:
    whole = save_architecture(tmp_path / "whole", "bert_classifier")
    bare = save_architecture(tmp_path / "bare", "bert_classifier", seed=1)
    body = {
        name.removeprefix("bert."): tensor
        for name, tensor in load_tensors(bare).items()
        if name.startswith("bert.")
    }
    write_tensors(bare, body)
    change_config(bare, architectures=["BertModel"])
    sources = opened(bare, whole)
    assert check_compatible(sources) is sources[1].structure
    found = correspond(sources[1].structure, sources[0].structure)
    assert found == {f"bert.{name}": name for name in body}

"""Merges of many architectures, none of which the engine knows by name.

Each is compared, tensor by tensor, with the formula written out in float64, and loaded with plain
transformers, which must find a place for every tensor and a tensor for every place.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from evomerge.merge.engine import MergeEngine
from evomerge.sources import open_source
from tests.architectures import (
    ARCHITECTURES,
    load_whole,
    save_architecture,
    save_expert,
    write_tensors,
)
from tests.checkpoints import load_tensors
from tests.merge.conftest import Document, as_recipe

Tensors = Mapping[str, torch.Tensor]

RELATIVE = 1e-6
"""Of a tensor's largest element: a few roundings of float32, 6e-8 each."""

DEPTHS: Mapping[str, Mapping[str, int]] = {
    **{
        name: {"model.layers.": 3}
        for name in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2")
    },
    "gpt2": {"transformer.h.": 3},
    "gpt_neox": {"gpt_neox.layers.": 3},
    "mixtral": {"model.layers.": 3},
    "qwen3_moe": {"model.layers.": 3},
    "mamba": {"backbone.layers.": 3},
    "bert": {"bert.encoder.layer.": 3},
    "bert_classifier": {"bert.encoder.layer.": 3},
    "llama_classifier": {"model.layers.": 3},
    "t5": {"encoder.block.": 2, "decoder.block.": 3},
    "llava": {"language_model.model.layers.": 3},
    "qwen2_vl": {"model.layers.": 3},
}
"""Prefix -> number of the layers that a gradient runs over, written out by hand."""

LANGUAGE_PARTS = {
    "llava": ("llama", "language_model."),
    "qwen2_vl": ("qwen2", ""),
}
"""The plain language model that a vision-language model is merged with; what precedes its names."""

WEIGHTS = ((0.3, 0.9), (1.1, 0.45))
"""Each expert's weight in the first layer and in the last."""

DENSITIES = ((0.4, 0.8), (0.9, 0.35))


@dataclass(frozen=True)
class Family:
    """Three checkpoints to merge, and their tensors under the names that the merge has.

    lead: the one whose configuration the merge takes. kept: tensors that only the lead has.
    """

    folders: tuple[Path, ...]
    tensors: tuple[Tensors, ...]
    lead: int
    kept: Tensors

    def merge(self, document: Document) -> dict[str, torch.Tensor]:
        references = [str(folder) for folder in self.folders]
        sources = {reference: open_source(reference, where="test") for reference in references}
        return dict(MergeEngine(sources).execute(as_recipe(document)))


def make_family(folder: Path, name: str, *, lead: int = 1) -> Family:
    """A base and two experts; of a vision-language model, the lead is one, the others are plain."""
    part, parent = LANGUAGE_PARTS.get(name, (name, ""))
    plain = save_architecture(folder / "base", part)
    experts = [save_expert(folder / f"expert{seed}", of=plain, seed=seed) for seed in (1, 2)]
    folders = [plain, *experts]
    tensors = [
        {parent + key: tensor for key, tensor in load_tensors(path).items()} for path in folders
    ]
    if part == name:
        return Family(tuple(folders), tuple(tensors), lead=0, kept={})
    vision = save_architecture(folder / "vision", name)
    own = load_tensors(vision)
    kept = {key: tensor for key, tensor in own.items() if key not in tensors[0]}
    write_tensors(vision, {**tensors[lead], **kept})  # its language model is a fine-tune too
    folders[lead] = vision
    return Family(tuple(folders), tuple(tensors), lead=lead, kept=kept)


def position(name: str, depths: Mapping[str, int]) -> float:
    """From 0 in the first layer to 1 in the last of a tensor's stack; 0 outside."""
    for prefix, depth in depths.items():
        if name.startswith(prefix):
            return int(name.removeprefix(prefix).partition(".")[0]) / (depth - 1)
    return 0.0


def at(place: float, ends: Sequence[float]) -> float:
    return ends[0] + place * (ends[1] - ends[0])


def linear(place: float, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    weights = [at(place, ends) for ends in WEIGHTS]
    total = sum(w * tensor.double() for w, tensor in zip(weights, tensors[1:], strict=True))
    assert isinstance(total, torch.Tensor)
    return total / sum(weights)


def ties(place: float, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Yadav et al. 2023, the divisor being the weights of those that agree."""
    base, *experts = (tensor.double() for tensor in tensors)
    deltas, weights = [], []
    for expert, density, weight in zip(experts, DENSITIES, WEIGHTS, strict=True):
        delta = (expert.float() - base.float()).double()  # task vectors are float32
        count = max(1, int(at(place, density) * delta.numel()))
        smallest = delta.abs().flatten().topk(count).values[-1]
        weights.append(at(place, weight))
        deltas.append(weights[-1] * torch.where(delta.abs() >= smallest, delta, 0.0))
    elected = torch.where(sum(deltas) >= 0, 1.0, -1.0)
    agree = [(delta * elected > 0).double() for delta in deltas]
    merged = sum(delta * yes for delta, yes in zip(deltas, agree, strict=True))
    divisor = sum(weight * yes for weight, yes in zip(weights, agree, strict=True))
    assert isinstance(merged, torch.Tensor)
    return base + merged / torch.where(torch.as_tensor(divisor) == 0, 1.0, divisor)


FORMULAS = {"linear": linear, "ties": ties}


def document_of(method: str, family: Family) -> Document:
    base, *experts = (str(folder) for folder in family.folders)
    models = [
        {"model": expert, "parameters": {"weight": list(weight)}}
        for expert, weight in zip(experts, WEIGHTS, strict=True)
    ]
    if method == "linear":
        return {"merge_method": "linear", "models": models}
    for model, density in zip(models, DENSITIES, strict=True):
        model["parameters"]["density"] = list(density)
    return {"merge_method": "ties", "base_model": base, "models": models}


def check(name: str, family: Family, method: str) -> None:
    merged = family.merge(document_of(method, family))
    assert set(merged) == set(family.tensors[0]) | set(family.kept)
    for key, tensor in merged.items():
        if key in family.kept:
            assert torch.equal(tensor, family.kept[key]), key
            continue
        stored = [tensors[key] for tensors in family.tensors]
        expected = FORMULAS[method](position(key, DEPTHS[name]), stored)
        error = (tensor.double() - expected).abs().max()
        assert error <= RELATIVE * expected.abs().max(), key
    out = family.folders[family.lead].with_name("merged")
    shutil.copytree(family.folders[family.lead], out)
    write_tensors(out, merged)
    load_whole(out, name)


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_merged_over_its_own_depth(
    tmp_path: Path, name: str, method: str
) -> None:
    check(name, make_family(tmp_path, name), method)


@pytest.mark.parametrize("name", LANGUAGE_PARTS)
def test_a_vision_language_model_may_be_the_base(tmp_path: Path, name: str) -> None:
    family = make_family(tmp_path, name, lead=0)
    assert family.kept
    check(name, family, "ties")


def test_what_is_not_of_floating_point_is_the_bases_own(tmp_path: Path) -> None:
    """Some checkpoints store positions or counts as integers."""
    family = make_family(tmp_path, "bert")
    counts = torch.arange(8)
    for place, folder in enumerate(family.folders):
        write_tensors(folder, {**family.tensors[place], "bert.counts": counts + place})
    for method, kept in (("ties", counts), ("linear", counts + 1)):
        merged = family.merge(document_of(method, family))["bert.counts"]
        assert merged.dtype == torch.int64
        assert torch.equal(merged, kept)


def test_norms_in_float32_beside_weights_in_bfloat16_keep_their_dtype(tmp_path: Path) -> None:
    family = make_family(tmp_path, "olmo2")
    stored = [
        {key: tensor if tensor.dim() == 1 else tensor.bfloat16() for key, tensor in each.items()}
        for each in family.tensors
    ]
    for folder, tensors in zip(family.folders, stored, strict=True):
        write_tensors(folder, tensors)
    merged = family.merge(document_of("linear", family))
    for key, tensor in merged.items():
        assert tensor.dtype == stored[0][key].dtype, key
        expected = linear(position(key, DEPTHS["olmo2"]), [each[key] for each in stored])
        # Half of the last place, and float32's own roundings where that is nearly a tie.
        step = RELATIVE if tensor.dtype == torch.float32 else 2.0**-8 + RELATIVE
        error = (tensor.double() - expected).abs()
        assert (error <= step * expected.abs() + RELATIVE * expected.abs().max()).all(), key

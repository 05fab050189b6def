"""A base with three experts, and both engines: ours and the published one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

from evomerge.merge.engine import MergeEngine
from evomerge.merge.tensor_cache import TensorCache
from evomerge.recipe import Recipe, read_recipe
from evomerge.sources import Source, open_source
from tests.architectures import save_architecture, save_expert
from tests.checkpoints import load_tensors, save_fine_tuned, save_tiny_llama

Tensors = dict[str, torch.Tensor]
Document = dict[str, Any]
Published = Callable[[Document], Tensors]

# Largest difference allowed over the largest value of the tensor. Both sides round each product
# and sum to float32, in different orders and (on spheres, rescaled) from sums of other precision.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Family:
    """A base and its experts: folders, opened sources, every tensor."""

    base: str
    experts: tuple[str, ...]
    sources: dict[str, Source]

    def tensors(self, reference: str) -> Tensors:
        return load_tensors(Path(reference))

    def merge(self, document: Document, *, limit_bytes: int = 2**30) -> Tensors:
        engine = MergeEngine(self.sources, cache=TensorCache(limit_bytes=limit_bytes))
        return dict(engine.execute(as_recipe(document)))


def make_family(folder: Path, *, experts: int = 3, scale: float = 0.02, **shape: Any) -> Family:
    base = save_tiny_llama(folder / "base", seed=0, **shape)
    tuned = [
        save_fine_tuned(folder / f"expert{seed}", of=base, seed=seed, scale=scale)
        for seed in range(1, experts + 1)
    ]
    return open_family(base, *tuned)


def make_architecture_family(folder: Path, architecture: str, *, experts: int = 3) -> Family:
    """Of the architectures that `tests.architectures` names; stored in float32."""
    base = save_architecture(folder / "base", architecture)
    return open_family(
        base,
        *(save_expert(folder / f"expert{i}", of=base, seed=i) for i in range(1, experts + 1)),
    )


def open_family(base: Path, *tuned: Path) -> Family:
    references = [str(path) for path in (base, *tuned)]
    sources = {reference: open_source(reference, where="test") for reference in references}
    return Family(references[0], tuple(references[1:]), sources)


def as_recipe(document: Document) -> Recipe:
    return read_recipe(yaml.safe_dump(document), where="test.yaml")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Float32 storage, so that magnitudes at a threshold are all different."""
    return make_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="session")
def bfloat16_family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return make_family(tmp_path_factory.mktemp("bfloat16"), dtype=torch.bfloat16)


@pytest.fixture
def published(tmp_path: Path) -> Published:
    """Executes a document with mergekit's own command, in float32."""

    def merge(document: Document) -> Tensors:
        out = tmp_path / "published"
        run_merge(
            MergeConfiguration.model_validate({"dtype": "float32", **document}),
            str(out),
            MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False),
        )
        return load_tensors(out)

    return merge


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2", "gemma2"])
def architecture(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Family:
    """Qwen2's head is tied to its embeddings; GPT-2 has biases and stores matrices (in, out)."""
    return make_architecture_family(tmp_path_factory.mktemp(request.param), request.param)


def worst_difference(ours: Tensors, theirs: Tensors) -> float:
    assert sorted(ours) == sorted(theirs)
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape
        assert ours[name].dtype == tensor.dtype
    return max(
        float((ours[name] - tensor).abs().max() / tensor.abs().max())
        for name, tensor in theirs.items()
    )

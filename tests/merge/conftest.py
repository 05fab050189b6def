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
from evomerge.recipe import Recipe, read_recipe
from evomerge.sources import Source, open_source
from tests.checkpoints import load_tensors, save_fine_tuned, save_tiny_llama

Tensors = dict[str, torch.Tensor]
Document = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A base and its experts: folders, opened sources, every tensor."""

    base: str
    experts: tuple[str, ...]
    sources: dict[str, Source]

    def tensors(self, reference: str) -> Tensors:
        return load_tensors(Path(reference))

    def merge(self, document: Document, **options: int) -> Tensors:
        return dict(MergeEngine(self.sources, **options).execute(as_recipe(document)))


def make_family(folder: Path, *, experts: int = 3, scale: float = 0.02, **shape: Any) -> Family:
    base = save_tiny_llama(folder / "base", seed=0, **shape)
    tuned = [
        save_fine_tuned(folder / f"expert{seed}", of=base, seed=seed, scale=scale)
        for seed in range(1, experts + 1)
    ]
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
def published(tmp_path: Path) -> Callable[[Document], Tensors]:
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

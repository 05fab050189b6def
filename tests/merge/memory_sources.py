"""Models that are in memory only, merged through the engine; and a merge by any method there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from evomerge.merge.engine import MergeEngine
from evomerge.merge.methods.registry import METHODS
from evomerge.merge.statistics import MEAN_SUFFIX, NORM_NAME, Header, weights_sha256
from evomerge.merge.tensor_cache import TensorCache
from evomerge.sources import Stack, Structure
from tests.merge.conftest import Document, Tensors, as_recipe

_DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_PER_MODEL: Mapping[str, Sequence[float]] = {
    "weight": (0.3, 0.9, 0.2),
    "density": (0.43, 0.61, 0.37),
    "gamma": (0.03, 0.1, 0.07),
    "epsilon": (0.15, 0.1, 0.2),
    "scale": (1.3,),
}
_OF_RECIPE = {"lambda": 1.3, "t": 0.3, "select_topk": 0.4, "alpha": 0.7, "r": 0.4}


@dataclass(frozen=True)
class MemorySource:
    """A model of named tensors, the layers of which are called layers.0, layers.1, ..."""

    reference: str
    tensors: Tensors
    folder: Path = Path()
    revision: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def structure(self) -> Structure:
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        layers = [int(name.split(".")[1]) for name in shapes if name.startswith("layers.")]
        dtypes = {name: str(tensor.dtype)[6:] for name, tensor in self.tensors.items()}
        common = _DTYPE_NAMES[next(iter(self.tensors.values())).dtype]
        return Structure(
            architecture="InMemory",
            shapes=shapes,
            dtype=common,  # type: ignore[arg-type]
            tied=False,
            stacks=(Stack("layers.", max(layers, default=0) + 1),),
            dtypes=dtypes,
        )

    def tensor(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def as_stored(self, name: str) -> bool:
        return True

    def prefetch(self, name: str) -> None:
        pass

    def sha256(self) -> Mapping[str, str]:
        return {"model.safetensors": self.reference}


Models = Mapping[str, Tensors]


def sources_of(models: Models) -> dict[str, MemorySource]:
    return {reference: MemorySource(reference, tensors) for reference, tensors in models.items()}


def engine_over(models: Models, *, limit_bytes: int = 2**30) -> MergeEngine:
    return MergeEngine(sources_of(models), cache=TensorCache(limit_bytes=limit_bytes))


def merge(models: Models, document: Document, *, limit_bytes: int = 2**30) -> Tensors:
    return dict(engine_over(models, limit_bytes=limit_bytes).execute(as_recipe(document)))


def merge_one(document: Document, **tensors: torch.Tensor) -> torch.Tensor:
    """The merge of one tensor of each model, given by the names of the models."""
    name = "layers.0.weight"
    models = {reference: {name: tensor} for reference, tensor in tensors.items()}
    return merge(models, {"out_dtype": "float32", **document})[name]


def document_of(
    method: str, *, base: str, experts: Sequence[str], statistics: Path | None = None
) -> Document:
    """A merge by a method of the registry with every parameter that is searched at work.

    experts: three or more, of which the method takes as many as it can.
    """
    known = METHODS[method]
    most = known.experts or 3
    if known.max_models is not None:
        most = known.max_models - (0 if known.weighs_base else 1)
    models = [
        {
            "model": model,
            "parameters": {
                name: values[place]
                for name, values in _PER_MODEL.items()
                if name in known.parameters and known.parameters[name].scope == "model"
            },
        }
        for place, model in enumerate(experts[:most])
    ]
    document: Document = {
        "merge_method": method,
        "models": models,
        "parameters": {n: v for n, v in _OF_RECIPE.items() if n in known.parameters},
    }
    if not known.weighs_base:
        document["base_model"] = base
    if known.statistics is not None:
        document["evomerge"] = {"statistics": str(statistics)}
    return document


def write_statistics(folder: Path, models: Models) -> Path:
    """Statistics of every model, at random: Fisher information, and inputs of matrices."""
    generator = torch.Generator().manual_seed(0)
    for reference, source in sources_of(models).items():
        informations: Tensors = {}
        inputs: Tensors = {}
        for name, tensor in source.tensors.items():
            found = torch.randn(tensor.shape, generator=generator).square()
            informations[name] = found
            informations[name + MEAN_SUFFIX] = found.mean() if found.numel() else torch.zeros(())
            if tensor.dim() == 2:
                seen = torch.randn((2 * tensor.shape[1], tensor.shape[1]), generator=generator)
                inputs[name] = seen.T @ seen
        informations[NORM_NAME] = torch.tensor(2.0)
        for kind, tensors in (("fisher", informations), ("inputs", inputs)):
            header = Header(
                kind=kind,  # type: ignore[arg-type]
                model=reference,
                weights_sha256=weights_sha256(source),
                text_sha256="none",
                settings="random",
            )
            folder.mkdir(exist_ok=True)
            save_file(tensors, folder / header.file_name, metadata=header.to_metadata())
    return folder

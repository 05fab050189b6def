"""A source as a live model; its gradients and inputs have the names of the checkpoint."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from evomerge.errors import SourceError, one_line
from evomerge.evaluate import WeightLoader, build_model
from evomerge.recipe import DType
from evomerge.sources import Adapter, Source


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a parameter that a checkpoint's tensor is: all of it, or a part of a fused one.

    offset, stride: in elements, as of a view of the parameter.
    """

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def of(self, parameter: torch.Tensor) -> torch.Tensor:
        """The part of a contiguous tensor of the parameter's shape."""
        return parameter.as_strided(self.shape, self.stride, self.offset)


class LiveSource:
    """A model that continues text, with the weights of a source.

    model: in evaluation mode, without gradients. parts: parameter name -> the checkpoint's tensors
    that it holds; the second name of a tied parameter is not among them. Raises SourceError for a
    model that does not continue text: an encoder, a classifier, an encoder with a decoder.
    """

    def __init__(
        self, source: Source, *, dtype: DType, device: torch.device, trust_remote_code: bool
    ) -> None:
        self.source = source
        self.model = _build(source, dtype, device, trust_remote_code)
        loader = WeightLoader(self.model)
        structure = source.structure
        loader.fill((name, source.tensor(name)) for name in structure.shapes)
        self.parts = _parts(self.model, loader, structure.shapes)


def _build(
    source: Source, dtype: DType, device: torch.device, trust_remote_code: bool
) -> PreTrainedModel:
    if not isinstance(source, Adapter):
        return build_model(
            source.folder,
            config=source.config,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
        )
    # An adapter has no configuration of its own, and may change its base's vocabulary.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(source.config), encoding="utf-8")
        try:
            return build_model(
                Path(folder), dtype=dtype, device=device, trust_remote_code=trust_remote_code
            )
        except SourceError as error:
            raise SourceError(str(error).replace(folder, source.reference)) from error


def _parts(
    model: PreTrainedModel, loader: WeightLoader, names: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[Part, ...]]:
    owners = {
        parameter.untyped_storage().data_ptr(): (name, parameter)
        for name, parameter in model.named_parameters()
    }
    parts: dict[str, list[Part]] = defaultdict(list)
    for name in names:
        if loader.rearranged(name):
            raise SourceError(
                f"{name}: this architecture rearranges the tensor on load, so that it has no "
                "statistics of its own; use a method without statistics"
            )
        view = loader.destination(name)
        owner = None if view is None else owners.get(view.untyped_storage().data_ptr())
        if view is None or owner is None:  # tied to another, or a buffer
            continue
        owner_name, parameter = owner
        offset = view.storage_offset() - parameter.storage_offset()
        parts[owner_name].append(Part(name, tuple(view.shape), view.stride(), offset))
    return {name: tuple(found) for name, found in parts.items()}


def load_tokenizer(source: Source, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The model's own tokenizer; an adapter without one has its base's. Raises SourceError."""
    folder = source.folder
    if isinstance(source, Adapter) and not (folder / "tokenizer_config.json").exists():
        folder = source.base.folder
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever a damaged tokenizer makes the libraries raise
        raise SourceError(
            f"{source.reference}: its tokenizer cannot be loaded ({one_line(error)}); put the "
            "tokenizer's files beside the weights"
        ) from error

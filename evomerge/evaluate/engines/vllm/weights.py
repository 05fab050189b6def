"""Prepares a checkpoint's stream for vLLM: checks it, unties the head, and adds empty layers.

vLLM itself ignores unknown tensors, keeps old tensors if new ones are missing, and keeps the old
head if it shares the embeddings. It cannot be used any more after a stream that raised an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch

from evomerge.errors import SourceError
from evomerge.evaluate.engines.weight_loader import WeightLoader
from evomerge.recipe import DType
from evomerge.sources import Structure

Tensors = Iterable[tuple[str, torch.Tensor]]
"""Tensors of a checkpoint, by name."""


class CheckedStream:
    """A stream that ends at the first tensor that does not fit; `check` then says what was wrong.

    loader: of a model of the same configuration; only shapes are used. heads: name of embeddings
    that a tied head shares -> name of the head, which is given apart.
    """

    def __init__(self, stream: Tensors, loader: WeightLoader, *, heads: Mapping[str, str]) -> None:
        self._stream = stream
        self._loader = loader
        self._heads = heads
        self._given: list[tuple[str, torch.Tensor]] = []  # without values
        self._broke: Exception | None = None

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor that a live model needs, once; raises nothing."""
        yielded: set[str] = set()
        aliases: dict[str, torch.Tensor] = {}
        try:
            for name, tensor in self._stream:
                self._given.append((name, tensor.to("meta")))
                if self._loader.rearranged(name):  # by vLLM's own rules too
                    yield name, tensor
                    continue
                place = self._loader.destination(name)
                if place is None:
                    owner = self._loader.owner(name)
                    if owner is not None:
                        aliases[owner] = tensor
                    continue
                if place.shape != tensor.shape:
                    return
                owner = str(self._loader.owner(name))
                yielded.add(owner)
                yield name, tensor
                if owner in self._heads:
                    yield self._heads[owner], tensor
        except Exception as error:  # of the merge: `check` raises it after vLLM has ended its load
            self._broke = error
            return
        # A tied head stored alone is the embeddings too.
        for owner, tensor in aliases.items():
            if owner not in yielded:
                yield owner, tensor
                yield self._heads[owner], tensor

    def check(self) -> None:
        """Raise the error that ended the stream, or SourceError if tensors do not fit the model."""
        if self._broke is not None:
            raise self._broke
        self._loader.fill(self._given)


def blank_layers(
    structure: Structure, *, depth: int, live_depth: int, dtype: DType
) -> Iterator[tuple[str, torch.Tensor]]:
    """Zeros for layers `depth` to `live_depth` of a live model, so that these layers do nothing.

    Such a layer adds exactly zero to the hidden states, so the model equals that of `depth` layers
    bit for bit. The zeros take no memory. structure: of any model of the architecture; its first
    layer gives the names and shapes of a layer's tensors.
    """
    zero = torch.zeros((), dtype=getattr(torch, dtype))
    stack = structure.stacks[0]
    first = f"{stack.prefix}0."
    for slot in range(depth, live_depth):
        for name, shape in structure.shapes.items():
            if name.startswith(first):
                yield f"{stack.prefix}{slot}.{name.removeprefix(first)}", zero.expand(shape)


def refuse_several_runs(structure: Structure, *, where: str) -> None:
    """Raise SourceError for a model that has more parts than a text model."""
    if len(structure.stacks) > 1:
        raise SourceError(
            f"{where}: it is more than a text model, and vllm scores only text models here; set "
            "compute.engine to transformers"
        )

"""What becomes of a checkpoint's stream on its way into vLLM: checked, untied, and made deeper.

vLLM itself leaves out unknown tensors, keeps old ones where new ones are missing, keeps the old
head where it shares the embeddings, and cannot go on after a stream that broke off.
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

    loader: into a model of the same configuration, of which only shapes are used.
    heads: embeddings that a tied head shares, by name -> the head, which is given apart.
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
        except Exception as error:  # of the merge: vLLM must end its loading before it is raised
            self._broke = error
            return
        # A tied head stored alone stands for the embeddings too.
        for owner, tensor in aliases.items():
            if owner not in yielded:
                yield owner, tensor
                yield self._heads[owner], tensor

    def check(self) -> None:
        """Raise what broke the stream, or SourceError for tensors that do not make the model."""
        if self._broke is not None:
            raise self._broke
        self._loader.fill(self._given)


def blank_layers(
    structure: Structure, *, depth: int, live_depth: int, dtype: DType
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of layers `depth` to `live_depth` of a live model that do nothing: zeros.

    What a block adds to the stream is then exactly zero, and so are the products of its norms, so
    that the model is, to the last bit, the one of `depth` layers. They take no memory. structure:
    of any model of the architecture, whose first layer says which tensors one has.
    """
    zero = torch.zeros((), dtype=getattr(torch, dtype))
    stack = structure.stacks[0]
    first = f"{stack.prefix}0."
    for slot in range(depth, live_depth):
        for name, shape in structure.shapes.items():
            if name.startswith(first):
                yield f"{stack.prefix}{slot}.{name.removeprefix(first)}", zero.expand(shape)


def refuse_several_runs(structure: Structure, *, where: str) -> None:
    """Raise SourceError for a model that is not of text alone."""
    if len(structure.stacks) > 1:
        raise SourceError(
            f"{where}: it is more than a model of text, and only those are scored with vllm; set "
            "compute.engine to transformers"
        )

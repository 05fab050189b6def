"""What a method is given, made of plain tensors: no checkpoint is written and no engine runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from evomerge.merge.methods.base import Inputs, Method, Value

FLOAT32 = 1e-5
"""Absolute, of values of order 1: a few roundings of float32 and sums of a few dozen terms."""

Stats = Mapping[str, Sequence[torch.Tensor | None]]


@dataclass
class TensorInputs:
    """One tensor of every model as `Inputs`; `facts_made` counts what was not known."""

    tensors: Sequence[torch.Tensor]
    values: Mapping[str, Value]
    weights: Sequence[float] = ()
    base: int | None = None
    statistics: Stats = field(default_factory=dict)
    name: str = "layers.0.weight"
    facts: dict[Any, NDArray[Any]] = field(default_factory=dict)
    facts_made: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors[0].shape)

    @property
    def members(self) -> range:
        return range(len(self.tensors))

    @property
    def experts(self) -> tuple[int, ...]:
        return tuple(member for member in self.members if member != self.base)

    def number(self, parameter: str, member: int | None = None) -> float:
        return float(self.values[parameter] if member is None else self.weights[member])

    def switch(self, parameter: str) -> bool:
        return bool(self.values[parameter])

    def choice(self, parameter: str) -> str:
        return str(self.values[parameter])

    def stored(self, member: int) -> torch.Tensor:
        return self.tensors[member]

    def tensor(self, member: int) -> torch.Tensor:
        return self.tensors[member].float()

    def task_vector(self, member: int) -> torch.Tensor:
        assert self.base is not None
        return self.tensor(member) - self.tensor(self.base)

    def draw_key(self, member: int) -> int:
        raise AssertionError("these methods draw nothing")

    def cached(
        self, kind: str, members: tuple[int, ...], make: Callable[[], NDArray[Any]]
    ) -> NDArray[Any]:
        key = kind, members
        if key not in self.facts:
            self.facts_made += 1
            self.facts[key] = make()
            self.facts[key].setflags(write=False)  # facts on disk are mapped read-only
        return self.facts[key]

    def keeps(self, kind: str, members: tuple[int, ...], size_bytes: int) -> bool:
        return True

    def statistic(self, member: int, kind: str) -> torch.Tensor | None:
        return self.statistics[kind][member] if kind in self.statistics else None


def run(
    method: Method,
    tensors: Sequence[torch.Tensor],
    *,
    weights: Sequence[float],
    base: int | None = None,
    statistics: Stats | None = None,
    dtype: torch.dtype = torch.float32,
    **values: Value,
) -> torch.Tensor:
    defaults = {
        name: spec.default
        for name, spec in method.parameters.items()
        if spec.scope == "recipe" and spec.default is not None
    }
    inputs = TensorInputs(
        tensors, {**defaults, **values}, weights, base, statistics=statistics or {}
    )
    return merged(method, inputs, dtype)


def merged(
    method: Method, inputs: TensorInputs, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    before = [tensor.clone() for tensor in inputs.tensors]
    out = torch.full(inputs.shape, torch.nan, dtype=dtype)
    as_inputs: Inputs = inputs
    method.merge(as_inputs, out)
    for tensor, kept in zip(inputs.tensors, before, strict=True):
        assert torch.equal(tensor, kept), "a source was written to"
    return out


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def informations(*diagonals: torch.Tensor | None) -> Stats:
    """Fisher diagonals with what is stored beside them; the tensor is the whole model."""
    known = [None if diagonal is None else diagonal.float() for diagonal in diagonals]
    return {
        "fisher": known,
        "fisher_mean": [None if f is None else f.mean() for f in known],
        "fisher_norm": [None if f is None else f.norm() for f in known],
    }

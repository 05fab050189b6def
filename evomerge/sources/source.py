"""A model to merge: its tensors, and its structure by their names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evomerge.recipe import DType

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Stack:
    """A numbered series of layers. prefix: the part of their tensors' names before the number."""

    prefix: str
    depth: int

    def layer_of(self, tensor_name: str) -> int | None:
        """The number of the layer that a tensor belongs to; None for tensors outside the stack."""
        if not tensor_name.startswith(self.prefix):
            return None
        number = tensor_name[len(self.prefix) :].partition(".")[0]
        if not number.isdecimal():
            return None
        layer = int(number)
        return layer if layer < self.depth else None


@dataclass(frozen=True, kw_only=True)
class Structure:
    """How a model is built.

    architecture: the class that `config.json` names. shapes: tensor name -> shape, in the order of
    the files. dtype: the storage dtype of most bytes. tied: whether the head shares the embedding's
    weight. stacks: every numbered series of layers, the main one first (the language model's; of
    two, the larger). dtypes: tensor name -> torch's name of its storage dtype ("bfloat16",
    "int64"), for an adapter as in its base; `dtype` for all if not given.

    repeated: tensors that are second names of another tensor's weight. ignored: tensors that
    transformers does not load, or that belong to another model stored with this one. parameters:
    tensor name -> its name in the live model, where it is known to differ.
    """

    architecture: str
    shapes: Mapping[str, tuple[int, ...]]
    dtype: DType
    tied: bool
    stacks: tuple[Stack, ...]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    parameters: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        assert self.stacks
        if not self.dtypes:
            object.__setattr__(self, "dtypes", dict.fromkeys(self.shapes, self.dtype))

    @property
    def depth(self) -> int:
        """Number of layers of the main stack."""
        return self.stacks[0].depth

    @property
    def layer_prefix(self) -> str:
        """The start of the names of the main stack's tensors, before the number."""
        return self.stacks[0].prefix

    def stack_of(self, tensor_name: str) -> Stack | None:
        """The stack a tensor belongs to; None for tensors outside the layers."""
        for stack in self.stacks:
            if stack.layer_of(tensor_name) is not None:
                return stack
        return None

    def layer_of(self, tensor_name: str) -> int | None:
        """The number of a tensor's layer in its stack; None for tensors outside the layers."""
        stack = self.stack_of(tensor_name)
        return None if stack is None else stack.layer_of(tensor_name)

    def position_of(self, tensor_name: str) -> float:
        """i/(L-1) for layer i of the L in the tensor's stack, 1 when L is 1, 0 outside."""
        for stack in self.stacks:
            layer = stack.layer_of(tensor_name)
            if layer is not None:
                return 1.0 if stack.depth == 1 else layer / (stack.depth - 1)
        return 0.0

    @property
    def outer(self) -> tuple[str, ...]:
        """Names of the tensors outside the layers."""
        return tuple(name for name in self.shapes if self.layer_of(name) is None)


# The interface that the rest of the code uses for a model to merge.


class Source(Protocol):
    """A model opened for reading: a checkpoint, or an adapter over one."""

    @property
    def reference(self) -> str:
        """Its name in recipes: a folder or a hub id."""

    @property
    def folder(self) -> Path:
        """The folder of its files."""

    @property
    def revision(self) -> str | None:
        """The commit of a hub id; None for a local folder."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config.json; for an adapter, its base's."""

    @property
    def structure(self) -> Structure:
        """How it is built."""

    @property
    def files(self) -> Mapping[str, Path]:
        """Every file that makes the model: weights, configurations, tokenizer; by name."""

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor by its name in `structure.shapes`; never to be written to.

        In the stored dtype, except that tensors changed by an adapter are float32.
        """

    def as_stored(self, name: str) -> bool:
        """Whether a tensor has the rows of the model's own files, in their order."""

    def prefetch(self, name: str) -> None:
        """Ask the system to read a tensor's bytes ahead; returns at once."""

    def sha256(self) -> Mapping[str, str]:
        """Hex digest of each of `files`. Reads every byte. Raises SourceError."""

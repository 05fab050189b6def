"""Computes only the logits that are wanted, and only what they depend on.

Of a pass over many texts only some cells' logits are wanted: the last token of each prompt, the
tokens before those of a continuation. The head is run on these alone, and so is the MLP of the last
layer, whose output nothing reads but the final norm and the head; the keys and values of all cells
are there as before. Whether a model takes that is found by trying, see `limits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

_MLP = ("mlp", "ffn", "feed_forward", "block_sparse_moe", "moe")


class LogitSelection:
    """Hooks on a model's head and on its last layer's MLP, which act within `only`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._cells: torch.Tensor | None = None
        self._shape: tuple[int, ...] = ()  # of what came to the MLP
        self._head_hooks: list[RemovableHandle] = []
        self._mlp_hooks: list[RemovableHandle] = []
        head, mlp = model.get_output_embeddings(), _last_mlp(model)
        if head is not None:
            self._head_hooks = [head.register_forward_pre_hook(self._before_head)]
        if mlp is not None:
            self._mlp_hooks = [
                mlp.register_forward_pre_hook(self._before_mlp),
                mlp.register_forward_hook(self._after_mlp),
            ]

    @property
    def spares_head(self) -> bool:
        """Whether a pass gives logits (1, wanted, vocabulary), of the wanted cells alone."""
        return bool(self._head_hooks)

    def keep_last_layer(self) -> bool:
        """Leave the last layer whole from now on; False where it was.

        Where its MLP takes no part of a pass, or where it may come more than once, or not last.
        """
        return _remove(self._mlp_hooks)

    def keep_head(self) -> bool:
        """Leave the head whole from now on; False where it was."""
        return _remove(self._head_hooks)

    @contextmanager
    def only(self, cells: torch.Tensor) -> Iterator[None]:
        """Within, a pass leaves out what it can; cells: (wanted,) by number, row by row."""
        self._cells = cells
        try:
            yield
        finally:
            self._cells = None

    def _before_head(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self._cells is None else _pick(given, self._cells)

    def _before_mlp(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self._shape = ()
        # Copying costs more than a few cells are worth.
        if self._cells is None or 2 * len(self._cells) > given[0].shape[:-1].numel():
            return None
        self._shape = tuple(given[0].shape)
        return _pick(given, self._cells)

    def _after_mlp(
        self, _: nn.Module, given: tuple[Any, ...], out: torch.Tensor
    ) -> torch.Tensor | None:
        if not self._shape:
            return None
        whole = out.new_zeros(self._shape)
        whole.flatten(0, 1)[self._cells] = out[0]
        return whole


def _last_mlp(model: PreTrainedModel) -> nn.Module | None:
    """What follows attention in the last layer of the text model; None where it is not plain."""
    depth = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", 0)
    stacks = [
        child
        for child in model.get_decoder().children()
        if isinstance(child, nn.ModuleList) and len(child) == depth > 0
    ]
    if len(stacks) != 1:
        return None
    found = [child for name, child in stacks[0][-1].named_children() if name in _MLP]
    return found[0] if len(found) == 1 else None


def _pick(given: tuple[Any, ...], cells: torch.Tensor) -> tuple[Any, ...]:
    """The same arguments, the first one (1, cells, size) in place of (rows, columns, size)."""
    return given[0].flatten(0, 1)[cells][None], *given[1:]


def _remove(hooks: list[RemovableHandle]) -> bool:
    found = bool(hooks)
    while hooks:
        hooks.pop().remove()
    return found

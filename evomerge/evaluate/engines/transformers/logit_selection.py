"""Computes only the wanted logits, and leaves out work that they do not depend on.

In a pass over many texts only some cells' logits are wanted: those of the last token of each
prompt, and of the tokens before those of a continuation. The head runs on these cells alone. So
does the MLP of the last layer, because only the final norm and the head read its output. The keys
and values of all cells are computed as before. Trials find whether this is exact for a model, see
`limits`.
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
    """Hooks on a model's head and on its last layer's MLP; they act within `only`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._cells: torch.Tensor | None = None
        self._shape: tuple[int, ...] = ()  # of the MLP's input
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
        """Run the last layer on all cells from now on; False if that was so already.

        For a model with an MLP that cannot run on a part of a pass, runs more than once, or is not
        last.
        """
        return _remove(self._mlp_hooks)

    def keep_head(self) -> bool:
        """Run the head on all cells from now on; False if that was so already."""
        return _remove(self._head_hooks)

    @contextmanager
    def only(self, cells: torch.Tensor) -> Iterator[None]:
        """Within, a pass leaves out what it can; cells: (wanted,) numbers, row by row."""
        self._cells = cells
        try:
            yield
        finally:
            self._cells = None

    def _before_head(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self._cells is None else _pick(inputs, self._cells)

    def _before_mlp(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self._shape = ()
        # If most cells are wanted, copying costs more than it saves.
        if self._cells is None or 2 * len(self._cells) > inputs[0].shape[:-1].numel():
            return None
        self._shape = tuple(inputs[0].shape)
        return _pick(inputs, self._cells)

    def _after_mlp(
        self, _: nn.Module, inputs: tuple[Any, ...], out: torch.Tensor
    ) -> torch.Tensor | None:
        if not self._shape:
            return None
        whole = out.new_zeros(self._shape)
        whole.flatten(0, 1)[self._cells] = out[0]
        return whole


def _last_mlp(model: PreTrainedModel) -> nn.Module | None:
    """The MLP after attention in the last layer of the text model; None if that is not clear."""
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


def _pick(inputs: tuple[Any, ...], cells: torch.Tensor) -> tuple[Any, ...]:
    """The same inputs, the first one (1, cells, size) in place of (rows, columns, size)."""
    return inputs[0].flatten(0, 1)[cells][None], *inputs[1:]


def _remove(hooks: list[RemovableHandle]) -> bool:
    found = bool(hooks)
    while hooks:
        hooks.pop().remove()
    return found

"""The work that a model's forward passes ask for, and how fast this machine does such work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from machine import wait
from transformers import PreTrainedModel


@dataclass
class Work:
    """tokens: read by all passes, padding too. flops: of matrices and attention, as executed.

    read_bytes: of weights, read once a pass.
    """

    tokens: int = 0
    flops: float = 0.0
    read_bytes: int = 0

    @classmethod
    @contextmanager
    def of(cls, model: PreTrainedModel) -> Iterator[Work]:
        """Count within the block; the model is of the Llama kind."""
        work = cls()
        config = model.config
        embedding = model.get_input_embeddings().weight
        head = model.get_output_embeddings().weight
        last = model.model.layers[-1].mlp  # which evomerge runs for some tokens only
        apart = {embedding, head, *last.parameters()}
        inner = sum(p.numel() for p in model.parameters() if p not in apart)
        inner_last = sum(p.numel() for p in last.parameters())
        # Of the embeddings only some rows are read, unless they are the head too.
        stored = sum(p.nbytes for p in model.parameters() if p is not embedding or p is head)
        size = config.num_attention_heads * (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )

        def count(_: object, given: tuple[Any, ...], options: Mapping[str, Any], out: Any) -> None:
            ids = options.get("input_ids", given[0] if given else None)
            mask, cache = options.get("attention_mask"), out.past_key_values
            keys = mask.shape[-1] if mask is not None else ids.shape[1]
            if mask is None and cache is not None:
                keys = max(keys, cache.get_seq_length())
            rows, length = ids.shape
            work.tokens += rows * length
            work.flops += 2 * inner * rows * length
            work.flops += 4 * config.num_hidden_layers * size * rows * length * keys
            work.flops += 2 * head.shape[1] * out.logits.numel()
            work.read_bytes += stored

        def count_last(_: object, given: tuple[Any, ...]) -> None:
            work.flops += 2 * inner_last * given[0].shape[:-1].numel()

        hooks = [
            model.register_forward_hook(count, with_kwargs=True),
            last.register_forward_pre_hook(count_last),
        ]
        try:
            yield work
        finally:
            for hook in hooks:
                hook.remove()


def machine_limits(device: str, dtype: str) -> tuple[float, float]:
    """Operations a second of a product of matrices, bytes a second of reading a matrix."""
    side = 1536 if device == "cpu" else 8192
    numbers: torch.dtype = getattr(torch, dtype)
    square = torch.randn(side, side, device=device).to(numbers)
    large, vector = (
        torch.randn(*shape, device=device).to(numbers) for shape in ((8192, 8192), (8192,))
    )
    flops = 2 * side**3 / _best_s(lambda: square @ square, device)
    return flops, large.nbytes / _best_s(lambda: large @ vector, device)


def _best_s(run: Callable[[], object], device: str) -> float:
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)

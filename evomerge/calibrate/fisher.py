"""The diagonal of the empirical Fisher information of a causal language model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.calibrate.live_source import LiveSource, Part
from evomerge.calibrate.totals import Totals
from evomerge.devices import upload
from evomerge.errors import InputError
from evomerge.merge import MEAN_SUFFIX, NORM_NAME


def fisher_shapes(live: LiveSource) -> dict[str, tuple[int, ...]]:
    """Shapes of a Fisher file: the diagonal of every tensor, its mean, and the norm of all."""
    parts = [part for found in live.parts.values() for part in found]
    shapes: dict[str, tuple[int, ...]] = {part.name: part.shape for part in parts}
    return shapes | {part.name + MEAN_SUFFIX: () for part in parts} | {NORM_NAME: ()}


def add_fisher(
    live: LiveSource,
    sequences: NDArray[np.int64],
    into: Mapping[str, torch.Tensor],
    advance: Callable[[int], None],
) -> None:
    """Fill `into`, zeros of `fisher_shapes`, with Σₙ (∇ log p(xₙ))² / (tokens predicted).

    sequences: (sequences, tokens) token ids. advance: called with how many more are done. The
    gradient is of a whole sequence's log-likelihood, squared element by element for each sequence
    by itself. Squares for each token would take a pass a token, and the gradients of a batch
    cancel. The result is divided by all predicted tokens, so it does not depend on how long and how
    many the sequences are.

    Memory beside the model: one gradient tensor at a time, the activations of one sequence, and
    `into`, which may be pages of a file. On a GPU, sums for which it has room stay there meanwhile.
    Raises InputError if a gradient is not finite.
    """
    device = live.model.device
    totals = Totals(into, device)
    with torch.enable_grad(), _squaring(live, totals):
        for sequence in sequences:
            tokens = upload(sequence, device)[None]  # (1, tokens)
            logits: torch.Tensor = live.model(input_ids=tokens, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits[0, :-1].float(), tokens[0, 1:], reduction="sum"
            )
            loss.backward()  # type: ignore[no-untyped-call]
            advance(1)
    totals.finish()
    predicted = sequences.shape[0] * (sequences.shape[1] - 1)
    squares = 0.0
    for parts in live.parts.values():
        for part in parts:
            diagonal = into[part.name].div_(predicted)
            into[part.name + MEAN_SUFFIX].fill_(diagonal.mean(dtype=torch.float64))
            squares += float(torch.linalg.vector_norm(diagonal, dtype=torch.float64)) ** 2
    if not math.isfinite(squares):
        raise InputError(
            f"{live.source.reference}: its gradients on the text are not finite; try --dtype "
            "float32, or mend the model"
        )
    into[NORM_NAME].fill_(math.sqrt(squares))


@contextlib.contextmanager
def _squaring(live: LiveSource, totals: Totals) -> Iterator[None]:
    """Within, add the square of every gradient to a sum as soon as it is there, and drop it."""
    parameters = dict(live.model.named_parameters())
    handles = []
    for name, parts in live.parts.items():
        parameters[name].requires_grad_(True)
        hook = _squares_into(parts, totals)
        handles.append(parameters[name].register_post_accumulate_grad_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None


def _squares_into(parts: tuple[Part, ...], totals: Totals) -> Callable[[torch.Tensor], None]:
    def add(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        gradient = parameter.grad.detach().contiguous()
        parameter.grad = None
        for part in parts:
            totals.add(part.name, part.of(gradient).float().square())

    return add

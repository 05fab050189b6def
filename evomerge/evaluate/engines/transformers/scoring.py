"""From logits to log-likelihoods: the scored tokens of many requests, pass by pass.

Numbers are lm-eval's: log-probabilities and their sums in the dtype of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.evaluate.engines.base import (
    Continuation,
    LogLikelihood,
    NonFiniteLogits,
    Tokens,
    read_of,
)
from evomerge.evaluate.engines.transformers.batching import pad


def read_texts(
    requests: Sequence[Continuation], *, context_tokens: int
) -> tuple[list[Tokens], list[list[int]]]:
    """The distinct texts that a model has to read, and the requests that each text answers.

    A text is a request without its last token, cut to the model's context: requests that differ in
    their last token only share it. Longest first. Raises TaskError for a continuation longer than
    the context.
    """
    shared: dict[bytes, list[int]] = {}
    for index, request in enumerate(requests):
        read = read_of(request, context_tokens=context_tokens)
        shared.setdefault(read.tobytes(), []).append(index)
    rows = sorted(shared.items(), key=lambda row: (-len(row[0]), row[0]))
    return [np.frombuffer(key, dtype=np.int64) for key, _ in rows], [owners for _, owners in rows]


class Scores:
    """The scored tokens of some requests, one slot each, request after request.

    Every slot must be filled once, in any order and in any number of steps.
    """

    def __init__(self, requests: Sequence[Continuation]) -> None:
        counts = np.array([request.scored for request in requests], dtype=np.int64)
        self.starts = np.concatenate(([0], np.cumsum(counts)))[:-1]  # first slot of each request
        self._targets = np.concatenate([request.tokens[-request.scored :] for request in requests])
        self._values = np.full(len(self._targets), np.nan)
        self._greedy = np.zeros(len(self._targets), dtype=bool)
        self._dtype = torch.float32

    def take(self, logits: torch.Tensor, rows: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Score tokens by the logits (places, vocabulary) that predict them.

        rows: (tokens,) the place of each token. slots: (tokens,) its slot. Raises NonFiniteLogits.
        """
        device = logits.device
        places = torch.from_numpy(rows).to(device)
        targets = torch.from_numpy(self._targets[slots]).to(device)
        log_probabilities = torch.log_softmax(logits, dim=-1)
        chosen = log_probabilities[places, targets].double().cpu().numpy()
        if not np.isfinite(chosen).all():
            raise NonFiniteLogits
        self._values[slots] = chosen
        self._greedy[slots] = (log_probabilities.argmax(dim=-1)[places] == targets).cpu().numpy()
        self._dtype = logits.dtype

    def answers(self) -> list[LogLikelihood]:
        """One answer a request, in order."""
        assert np.isfinite(self._values).all(), "a slot was not taken"
        sums = np.add.reduceat(self._values, self.starts)
        # lm-eval's sums have the dtype of the logits, and ties between choices depend on it.
        rounded = torch.from_numpy(sums).to(self._dtype).tolist()
        greedy = np.logical_and.reduceat(self._greedy, self.starts).tolist()
        return list(zip(rounded, greedy, strict=True))


class RunPadded(Protocol):
    """A forward pass over right-padded token ids (rows, longest)."""

    def __call__(self, padded: NDArray[np.int64], *, keep: int) -> torch.Tensor:
        """Logits (rows, keep, vocabulary) of the last `keep` positions."""


def score_padded(
    texts: Sequence[Tokens],
    owners: Sequence[Sequence[int]],
    requests: Sequence[Continuation],
    scores: Scores,
    run: RunPadded,
) -> None:
    """Score the requests of one batch of texts; owners: the requests that each text answers.

    scores: of all `requests`. Raises NonFiniteLogits.
    """
    padded = pad(texts, side="right")
    longest = padded.shape[1]
    spans = []
    slots = []
    for row, (text, indices) in enumerate(zip(texts, owners, strict=True)):
        for index in indices:
            count = requests[index].scored
            spans.append(row * longest + np.arange(len(text) - count, len(text)))
            slots.append(scores.starts[index] + np.arange(count))
    cells, places = np.unique(np.concatenate(spans), return_inverse=True)
    rows, columns = np.divmod(cells, longest)
    keep = longest - int(columns.min())
    # Padding is on the right, where causal attention never looks from a scored position.
    logits = run(padded, keep=keep)
    scores.take(
        logits[
            torch.from_numpy(rows).to(logits.device),
            torch.from_numpy(columns - (longest - keep)).to(logits.device),
        ],
        places,
        np.concatenate(slots),
    )

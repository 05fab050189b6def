"""From logits to log-likelihoods: the scored tokens of many requests, pass by pass.

Numbers are lm-eval's: log-probabilities and their sums in the dtype of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.devices import upload
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


Wanted: TypeAlias = "tuple[NDArray[np.int64], torch.Tensor]"
"""What is asked of one pass: slots, and on its device (2, tokens) places and targets."""

_UNREAD = 16
"""Passes whose results are read at once: few enough that a broken model is found soon."""


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
        self._unread: list[tuple[NDArray[np.int64], torch.Tensor]] = []  # slots, their scores

    def placed(
        self,
        rows: Sequence[NDArray[np.int64]],
        slots: Sequence[NDArray[np.int64]],
        *,
        device: torch.device,
    ) -> list[Wanted]:
        """What passes are asked for, in one copy to the device.

        rows: of each pass, (tokens,) the place of each token among its logits. slots: of each pass,
        (tokens,) their slots.
        """
        counts = [len(each) for each in slots]
        numbers = np.stack([np.concatenate(rows), self._targets[np.concatenate(slots)]])
        parts = upload(numbers, device).split(counts, dim=1)  # type: ignore[no-untyped-call]
        return list(zip(slots, parts, strict=True))

    def take(self, logits: torch.Tensor, wanted: Wanted) -> None:
        """Score tokens by the logits (places, vocabulary) that predict them.

        Raises NonFiniteLogits, also for passes before this one.
        """
        slots, (places, targets) = wanted
        log_probabilities = torch.log_softmax(logits, dim=-1)
        chosen = log_probabilities[places, targets].double()
        greedy = log_probabilities.argmax(dim=-1)[places] == targets
        self._unread.append((slots, torch.stack([chosen, greedy])))
        self._dtype = logits.dtype
        # A GPU goes on with the next passes meanwhile; on a CPU, waiting would save nothing.
        if logits.device.type == "cpu" or len(self._unread) >= _UNREAD:
            self._read()

    def _read(self) -> None:
        """Read what passes have found, in one copy from the device. Raises NonFiniteLogits."""
        if not self._unread:
            return
        slots = np.concatenate([slots for slots, _ in self._unread])
        chosen, greedy = torch.cat([found for _, found in self._unread], dim=1).cpu().numpy()
        self._unread.clear()
        if not np.isfinite(chosen).all():
            raise NonFiniteLogits
        self._values[slots] = chosen
        self._greedy[slots] = greedy != 0.0

    def answers(self) -> list[LogLikelihood]:
        """One answer a request, in order. Raises NonFiniteLogits."""
        self._read()
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


@dataclass(frozen=True, kw_only=True, eq=False)
class PaddedBatch:
    """A batch of texts; padded: (rows, longest) token ids. keep: how many last positions count.

    cells: (2, cells) rows and columns, among those that are kept, of the logits that are wanted.
    places: (tokens,) which of them each scored token needs. slots: (tokens,) see `Scores`.
    """

    padded: NDArray[np.int64]
    keep: int
    cells: NDArray[np.int64]
    places: NDArray[np.int64]
    slots: NDArray[np.int64]


def padded_batch(
    texts: Sequence[Tokens],
    owners: Sequence[Sequence[int]],
    requests: Sequence[Continuation],
    starts: NDArray[np.int64],
) -> PaddedBatch:
    """The batch of texts; owners: the requests that each answers. starts: see `Scores`."""
    padded = pad(texts, side="right")
    longest = padded.shape[1]
    spans = []
    slots = []
    for row, (text, indices) in enumerate(zip(texts, owners, strict=True)):
        for index in indices:
            count = requests[index].scored
            spans.append(row * longest + np.arange(len(text) - count, len(text)))
            slots.append(starts[index] + np.arange(count))
    cells, places = np.unique(np.concatenate(spans), return_inverse=True)
    rows, columns = np.divmod(cells, longest)
    keep = longest - int(columns.min())
    return PaddedBatch(
        padded=padded,
        keep=keep,
        cells=np.stack([rows, columns - (longest - keep)]),
        places=places,
        slots=np.concatenate(slots),
    )


def score_padded(
    batches: Sequence[PaddedBatch], scores: Scores, run: RunPadded, *, device: torch.device
) -> None:
    """Score the requests of batches. scores: of all requests. Raises NonFiniteLogits."""
    wanted = scores.placed(
        [batch.places for batch in batches], [batch.slots for batch in batches], device=device
    )
    counts = [batch.cells.shape[1] for batch in batches]
    all_cells = upload(np.concatenate([batch.cells for batch in batches], axis=1), device)
    of_batches = all_cells.split(counts, dim=1)  # type: ignore[no-untyped-call]
    for batch, of_batch, (rows, columns) in zip(batches, wanted, of_batches, strict=True):
        # Padding is on the right, where causal attention never looks from a scored position.
        logits = run(batch.padded, keep=batch.keep)
        scores.take(logits[rows, columns], of_batch)

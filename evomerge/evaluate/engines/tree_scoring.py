"""Log-likelihoods of many requests from the passes over the tree of their texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from evomerge.evaluate.engines.base import Continuation, LogLikelihood
from evomerge.evaluate.engines.scoring import Scores
from evomerge.evaluate.engines.token_tree import Integers, Plan
from evomerge.evaluate.engines.tree_passes import RunPass, run_passes


def score_tree(
    requests: Sequence[Continuation],
    owners: Sequence[Sequence[int]],
    plan: Plan,
    run: RunPass,
    *,
    device: torch.device,
) -> list[LogLikelihood]:
    """One answer a request, in order; owners: the requests that each text of the plan answers.

    Raises NonFiniteLogits.
    """
    scores = Scores(requests)
    found: dict[int, list[tuple[Integers, Integers]]] = {}  # pass -> cells, slots
    for place, indices in zip(plan.places, owners, strict=True):
        length = place.past + len(place.cells)
        for index in indices:
            count = requests[index].scored
            slots = scores.starts[index] + np.arange(count)
            own = min(count, len(place.cells))
            found.setdefault(place.last, []).append((place.cells[-own:], slots[count - own :]))
            for step in range(count - own):
                number, cell = place.find(length - count + step)
                found.setdefault(number, []).append((np.array([cell]), slots[step : step + 1]))
    cells = {n: np.concatenate([cells for cells, _ in parts]) for n, parts in found.items()}
    slots_of = {n: np.concatenate([slots for _, slots in parts]) for n, parts in found.items()}
    wanted: dict[int, Integers] = {}
    rows: dict[int, Integers] = {}
    for number, each in cells.items():
        wanted[number], rows[number] = np.unique(each, return_inverse=True)
    for number, logits, _ in run_passes(plan, wanted, run, device=device):
        if number in wanted:
            scores.take(logits, rows[number], slots_of[number])
    return scores.answers()

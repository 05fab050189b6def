"""A quick look at what plain merges of the experts score, on items kept for tuning the training.

It guides the choice of the experts' training and is never shown an evaluated item.
"""

from __future__ import annotations

from math import exp, log

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from kana.problems import SKILLS, held_out
from kana.training import score

AIMS = ("arithmetic_en", "comparison_ja", "counting_ja")
DEVELOPMENT_ITEMS = 500


def print_merges(base: LlamaForCausalLM, experts: list[LlamaForCausalLM]) -> None:
    """Print the development scores of the base, each expert and global task-arithmetic merges."""
    items = {name: held_out(name, "development", DEVELOPMENT_ITEMS) for name in SKILLS}
    start = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    deltas = [
        {name: tensor - start[name] for name, tensor in expert.state_dict().items()}
        for expert in experts
    ]
    count = len(experts)
    one_each = [[float(index == other) for other in range(count)] for index in range(count)]
    soups = [[1 / count] * count, *([weight] * count for weight in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0))]
    for weights in ([0.0] * count, *one_each, *soups):
        base.load_state_dict(_add(start, deltas, weights))
        scores = {name: score(base, asked) for name, asked in items.items()}
        mean = exp(sum(log(max(scores[name], 1e-3)) for name in AIMS) / len(AIMS))
        listed = " ".join(f"{name} {value:.3f}" for name, value in scores.items())
        print(f"weights {[round(weight, 2) for weight in weights]}: geometric {mean:.3f}; {listed}")


def _add(
    start: dict[str, Tensor], deltas: list[dict[str, Tensor]], weights: list[float]
) -> dict[str, Tensor]:
    return {
        name: tensor
        + sum(
            (w * delta[name] for w, delta in zip(weights, deltas, strict=True)),
            torch.zeros_like(tensor),
        )
        for name, tensor in start.items()
    }

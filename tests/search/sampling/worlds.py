"""Simulated outcomes of models on items, with everything known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.float64]


def logistic_world(
    seed: int, *, models: int, items: int
) -> tuple[Outcomes, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Outcomes (models, items) of a two-parameter logistic model; its a, b and θ."""
    generator = np.random.default_rng(seed)
    discrimination = np.exp(0.5 * generator.standard_normal(items))
    difficulty = 1.5 * generator.standard_normal(items) - 0.5
    ability = generator.standard_normal(models)
    chance = 1.0 / (1.0 + np.exp(-(ability[:, None] * discrimination - difficulty)))
    outcomes = (generator.random(chance.shape) < chance).astype(np.float64)
    return outcomes, discrimination, difficulty, ability


def clustered_world(
    seed: int, *, models: int, sizes: tuple[int, ...]
) -> tuple[Outcomes, NDArray[np.int64]]:
    """Outcomes of models that answer all items of a cluster alike, and each item's cluster.

    No cluster is answered alike by all models.
    """
    generator = np.random.default_rng(seed)
    cluster = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    answers = generator.integers(0, 2, size=(models, len(sizes))).astype(np.float64)
    answers[0] = 0.0
    answers[1] = 1.0
    return answers[:, cluster], cluster

"""Methods that take elements from one of two models: Arcee Fusion and NearSwap.

Arcee Fusion has no parameter, so all of its passes but the last are computed only once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.kernels.swaps import swap_important, swap_near
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec

if TYPE_CHECKING:
    import torch

_EPSILON = 1e-8
_BLOCK_ELEMENTS = 2**17


def merge_arcee_fusion(inputs: Inputs, out: torch.Tensor) -> None:
    """base + δ where its importance |δ| · KL(softmax θ ‖ softmax θ₀) is at least the threshold.

    The divergence is of a row, along the last dimension, in float64. The threshold is the median of
    the importances of all elements of the tensor, plus 1.5 times the distance between their
    quartiles.
    """
    assert inputs.base is not None
    if out.numel() == 0:
        return
    (other,) = inputs.experts
    members = (other, inputs.base)
    width = inputs.shape[-1] if inputs.shape else 1
    base, expert = (inputs.stored(member).reshape(-1, width) for member in (inputs.base, other))
    divergences = inputs.cached(
        "divergence of rows", members, lambda: row_divergences(base, expert)
    )
    threshold = inputs.cached(
        "least importance fused",
        members,
        lambda: np.array([_threshold(base, expert, divergences)]),
    )
    swap_important(base, expert, divergences, float(threshold[0]), out.view(-1, width))


def row_divergences(base: torch.Tensor, expert: torch.Tensor) -> NDArray[np.float32]:
    """KL(softmax of the expert's row ‖ softmax of the base's), (rows,), from (rows, width)."""
    found = np.empty(base.shape[0], dtype=np.float32)
    for rows in _blocks(base):
        p, q = (_softmax(tensor[rows]) + _EPSILON for tensor in (expert, base))
        found[rows] = np.add.reduce(p * np.log(p / q), axis=1)
    return found


def _softmax(rows: torch.Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = rows.double().numpy()
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / np.add.reduce(powers, axis=1, keepdims=True)
    return shares


def _threshold(
    base: torch.Tensor, expert: torch.Tensor, divergences: NDArray[np.float32]
) -> np.float32:
    importances = np.empty(base.shape, dtype=np.float32)
    for rows in _blocks(base):
        sizes = (expert[rows].float() - base[rows].float()).abs()
        importances[rows] = sizes.numpy() * divergences[rows, None]
    ordered = importances.reshape(-1)
    places = [int(share * (ordered.size - 1)) for share in (0.25, 0.5, 0.75)]
    ordered.partition(places)
    lower, median, upper = ordered[places]
    return np.float32(median + np.float32(1.5) * (upper - lower))


def _blocks(matrix: torch.Tensor) -> list[slice]:
    """Slices that cover a matrix's rows, some rows at a time."""
    rows, width = matrix.shape
    step = max(1, _BLOCK_ELEMENTS // width)
    return [slice(row, row + step) for row in range(0, rows, step)]


ARCEE_FUSION = Method(
    name="arcee_fusion",
    citation="Arcee AI 2024, Arcee Fusion, in MergeKit, arXiv:2403.13257",
    parameters={},
    merge=merge_arcee_fusion,
    needs_base=True,
    weighs_base=False,
    min_models=2,
    max_models=2,
    mergekit=True,
)


# Nearswap: the other model's value where the two are near, the base's where they are far.


_SMALLEST_DISTANCE = 1e-6


def merge_nearswap(inputs: Inputs, out: torch.Tensor) -> None:
    """wb + (1 - w)a with w = min(1, max(0, t / |a - b|)), a the base; |a - b| is 1e-6 at least."""
    assert inputs.base is not None
    (other,) = inputs.experts
    base, expert = inputs.stored(inputs.base), inputs.stored(other)
    swap_near(base, expert, inputs.number("t"), _SMALLEST_DISTANCE, out)


NEARSWAP = Method(
    name="nearswap",
    citation="alchemonaut 2024, QuartetAnemoi-70B-t0.0001, huggingface.co/alchemonaut",
    # The distances that matter are those of fine-tuned weights: search t on a log scale.
    parameters={"t": ParameterSpec(kind="number", scope="recipe", search=(1e-5, 1e-1))},
    merge=merge_nearswap,
    needs_base=True,
    weighs_base=False,
    min_models=2,
    max_models=2,
    mergekit=True,
)

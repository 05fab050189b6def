"""One model's tensors, scaled: what Frankenmerges and folded data-flow routes are made of."""

from __future__ import annotations

import numpy as np
import torch

from evomerge.merge.kernels import weighted_sum
from evomerge.merge.method import Inputs, Method, ParameterSpec


def merge_passthrough(inputs: Inputs, out: torch.Tensor) -> None:
    """scale · θ + shift; mergekit has no shift."""
    scale, shift = inputs.number("scale", 0), inputs.number("shift", 0)
    tensors = [inputs.stored(0)]
    if shift:
        tensors.append(torch.ones_like(out, dtype=torch.float32))
    weighted_sum(tensors, np.array([scale, shift][: len(tensors)]), out)


PASSTHROUGH = Method(
    name="passthrough",
    citation="Goddard et al. 2024, Arcee's MergeKit (passthrough), arXiv:2403.13257",
    parameters={
        "scale": ParameterSpec(kind="number", scope="model", default=1.0, search=(0.0, 1.5)),
        "shift": ParameterSpec(kind="number", scope="model", default=0.0),
    },
    merge=merge_passthrough,
    needs_base=False,
    weighs_base=True,
    max_models=1,
    on_device=True,
    mergekit=True,
)

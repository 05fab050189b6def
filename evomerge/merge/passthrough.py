"""One model's tensors, scaled: what Frankenmerges and folded data-flow routes are made of."""

from __future__ import annotations

import numpy as np
import torch

from evomerge.merge.kernels import weighted_sum
from evomerge.merge.method import Inputs, Method, ParameterSpec


def merge_passthrough(inputs: Inputs, out: torch.Tensor) -> None:
    """scale · θ."""
    weighted_sum([inputs.stored(0)], np.array([inputs.number("scale", 0)]), out)


PASSTHROUGH = Method(
    name="passthrough",
    citation="Goddard et al. 2024, Arcee's MergeKit (passthrough), arXiv:2403.13257",
    parameters={
        "scale": ParameterSpec(kind="number", scope="model", default=1.0, search=(0.0, 1.5))
    },
    merge=merge_passthrough,
    needs_base=False,
    weighs_base=True,
    max_models=1,
    on_device=True,
)

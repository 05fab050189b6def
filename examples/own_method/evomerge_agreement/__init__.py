"""Agreement: what all experts changed in the same direction is kept, all else is the base's.

A whole merge method in a package of its own; `pip install ./examples/own_method` adds it.
"""

from __future__ import annotations

import torch

from evomerge.merge import Inputs, Method, ParameterSpec


def merge_agreement(inputs: Inputs, out: torch.Tensor) -> None:
    """Base + the weighted sum of the task vectors, where all of them have one sign.

    inputs: the tensors of one name, of every model; those that it returns are never written to.
    out: the merged tensor, of their shape, in the dtype of the merged checkpoint.
    """
    assert inputs.base is not None, "needs_base"
    agreed = torch.zeros(inputs.shape)  # float32, as all arithmetic is
    signs = torch.zeros(inputs.shape)
    for expert in inputs.experts:
        changed = inputs.task_vector(expert)
        signs += changed.sign()
        agreed += inputs.number("weight", expert) * changed
    agreed *= signs.abs() == len(inputs.experts)
    out.copy_(inputs.tensor(inputs.base) + agreed)  # rounded once


AGREEMENT = Method(
    name="agreement",
    citation="an example of evomerge's documentation",
    parameters={"weight": ParameterSpec(kind="number", scope="model", search=(0.0, 1.5))},
    merge=merge_agreement,
    needs_base=True,
    weighs_base=False,
    min_models=2,
)

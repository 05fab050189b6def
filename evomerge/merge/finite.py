"""Whether the numbers of a merged tensor can be stored: a NaN or an infinity ends the merge."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from evomerge.errors import MergeError
from evomerge.merge.plan import Plan, TensorPlan
from evomerge.sources import Source
from evomerge.sources.digests import not_finite


def check_finite(
    name: str, tensor: torch.Tensor, plan: Plan, sources: Mapping[str, Source]
) -> None:
    """Raise MergeError for a merged tensor that holds a NaN or an infinity, with what it is of."""
    what = not_finite(tensor)
    if what:
        made = next(each for each in plan.tensors if each.name == name)
        raise MergeError(why_not_finite(made, what, tensor.dtype, sources))


def why_not_finite(
    made: TensorPlan, what: str, dtype: torch.dtype, sources: Mapping[str, Source]
) -> str:
    """The sentence a user reads: the first model whose own tensor shows the reason, if one does."""
    stored = str(dtype).removeprefix("torch.")
    for member in made.members:
        source = sources[member.reference]
        values = source.tensor(member.tensor)
        found = not_finite(values)
        if found:
            return f"{made.name}: {found} in {member.tensor} of {member.reference}; mend that model"
        if dtype.is_floating_point and values.is_floating_point():
            largest = float(values.abs().max())
            if largest > torch.finfo(dtype).max:
                return (
                    f"{made.name}: {what}, as {member.reference} has {largest:.3g} there and "
                    f"{stored} ends at {torch.finfo(dtype).max:.3g}; merge into bfloat16 or float32"
                )
    return (
        f"{made.name}: the merge makes {what} of finite weights in {stored}; use other weights of "
        "the models, or a wider dtype"
    )

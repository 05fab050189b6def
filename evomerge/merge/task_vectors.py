"""Merges of task vectors: base + λ · consensus(weight · sparsify(θ - base)).

A task vector is what fine-tuning added to the base (Ilharco et al. 2023). The methods of this
family differ in what they keep of each vector and in how they settle disagreement, and are written
as pairs of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from evomerge.merge.method import Inputs, Method, ParameterSpec
from evomerge.merge.random_mask import DRAW_BITS
from evomerge.merge.reductions import absolute_sum, largest_mask

Mask = Callable[[Inputs, int, torch.Tensor, float], torch.Tensor]
"""(inputs, member, its task vector, density in (0, 1)) -> 1 where the vector is kept,
0 elsewhere; float32, for torch compares into floats four times as fast as into booleans."""

Consensus = Callable[[Sequence[float], Sequence[torch.Tensor | None], bool], torch.Tensor | None]
"""(weights, task vectors, normalize) -> their sum, new memory; None stands for zeros."""

_SMALLEST_SUM = 1e-7  # |δ| sums under this are not rescaled
_SMALLEST_DIVISOR = 1e-8


def keep_largest(inputs: Inputs, member: int, vector: torch.Tensor, density: float) -> torch.Tensor:
    """The largest ⌊density·n⌋ magnitudes, one at least (Yadav et al. 2023, trim)."""
    return largest_mask(vector.abs(), max(1, int(density * vector.numel())))


def keep_random(inputs: Inputs, member: int, vector: torch.Tensor, density: float) -> torch.Tensor:
    """Each element by itself with probability `density` (Yu et al. 2024, drop)."""
    limit = int(density * 2**DRAW_BITS)
    return torch.lt(inputs.draws(member), limit, out=torch.empty_like(vector))


def add_all(
    weights: Sequence[float], vectors: Sequence[torch.Tensor | None], normalize: bool
) -> torch.Tensor | None:
    """Σ wδ; normalised by Σ w, where that is not zero."""
    total: torch.Tensor | None = None
    for weight, vector in zip(weights, vectors, strict=True):
        if vector is None or weight == 0.0:
            continue
        term = vector * weight
        total = term if total is None else total.add_(term)
    if total is not None and normalize:
        divisor = float(sum(np.float32(weight) for weight in weights))
        if abs(divisor) >= _SMALLEST_DIVISOR:
            total.div_(divisor)
    return total


def elect_signs(
    weights: Sequence[float], vectors: Sequence[torch.Tensor | None], normalize: bool
) -> torch.Tensor | None:
    """Σ over the wδ whose sign is that of Σ wδ, element by element (Yadav et al. 2023, elect).

    Zero counts as positive in the vote and never as agreeing. Normalised by the weights that agree.
    """
    pairs = [(w, v) for w, v in zip(weights, vectors, strict=True) if v is not None and w != 0.0]
    if not pairs:
        return None
    terms = [vector * weight for weight, vector in pairs]
    vote = terms[0].clone()
    for term in terms[1:]:
        vote.add_(term)
    elected = torch.ge(vote, 0.0, out=vote).mul_(2.0).sub_(1.0)  # ±1
    total, divisor, agrees = (torch.zeros_like(vote) for _ in range(3))
    for (weight, _), term in zip(pairs, terms, strict=True):
        term.mul_(elected).clamp_min_(0.0)  # exact: only the sign changes
        total.add_(term)
        if normalize:
            divisor.add_(torch.gt(term, 0.0, out=agrees).mul_(weight))
    if normalize:
        total.div_(divisor.add_(torch.eq(divisor, 0.0, out=agrees)))  # 0 is read as 1
    return total.mul_(elected)


def merge_task_vectors(inputs: Inputs, *, mask: Mask | None, consensus: Consensus) -> torch.Tensor:
    """base + λ · consensus of the sparsified task vectors, float32."""
    assert inputs.base is not None
    base = inputs.tensor(inputs.base)
    weights = [inputs.number("weight", member) for member in inputs.experts]
    vectors = [_sparsified(inputs, member, mask) for member in inputs.experts]
    mixed = consensus(weights, vectors, inputs.switch("normalize"))
    if mixed is None:
        return base.clone()
    strength = inputs.number("lambda")
    if strength != 1.0:
        mixed.mul_(strength)
    return mixed.add_(base)


def _sparsified(inputs: Inputs, member: int, mask: Mask | None) -> torch.Tensor | None:
    """What a method keeps of a task vector, rescaled as the recipe says; None for nothing."""
    if inputs.number("weight", member) == 0.0:
        return None  # spares reading it
    vector = inputs.task_vector(member)
    if mask is None:
        return vector
    density = inputs.number("density", member)
    if density >= 1.0 or vector.numel() == 0:
        return vector
    if density <= 0.0:
        return None
    kept = vector * mask(inputs, member, vector, density)
    rescale = inputs.choice("rescale")
    if rescale == "density":
        kept.div_(density)
    elif rescale == "l1":
        before, after = absolute_sum(vector), absolute_sum(kept)
        if min(before, after) >= _SMALLEST_SUM:
            kept.mul_(before / after)
    return kept


def _parameters(*, normalize: bool, rescale: str | None) -> Mapping[str, ParameterSpec]:
    """Parameters of a method of the family; no `density` and `rescale` where nothing is dropped."""
    parameters = {
        "weight": ParameterSpec(kind="number", scope="model", search=(0.0, 1.5)),
        "lambda": ParameterSpec(kind="number", scope="recipe", default=1.0, search=(0.5, 2.0)),
        "normalize": ParameterSpec(kind="switch", scope="recipe", default=normalize),
    }
    if rescale is None:
        return parameters
    return parameters | {
        "density": ParameterSpec(
            kind="number",
            scope="model",
            default=1.0,
            allowed=(0.0, 1.0),
            mend="give the fraction of parameters to keep (mergekit reads more than 1 as 1)",
            search=(0.1, 1.0),
        ),
        # true and false, as mergekit writes it, are l1 and none.
        "rescale": ParameterSpec(
            kind="choice", scope="recipe", default=rescale, choices=("l1", "density", "none")
        ),
    }


TASK_ARITHMETIC = Method(
    name="task_arithmetic",
    citation="Ilharco et al. 2023, Editing models with task arithmetic, arXiv:2212.04089",
    parameters=_parameters(normalize=False, rescale=None),
    merge=partial(merge_task_vectors, mask=None, consensus=add_all),
    needs_base=True,
    weighs_base=False,
    ignored=frozenset({"density", "rescale", "int8_mask"}),
)

TIES = Method(
    name="ties",
    citation="Yadav et al. 2023, TIES-Merging, arXiv:2306.01708",
    parameters=_parameters(normalize=True, rescale="none"),
    merge=partial(merge_task_vectors, mask=keep_largest, consensus=elect_signs),
    needs_base=True,
    weighs_base=False,
    ignored=frozenset({"int8_mask"}),
)

DARE_TIES = Method(
    name="dare_ties",
    citation="Yu et al. 2024, Language models are super Mario (DARE), arXiv:2311.03099; "
    "signs elected as in TIES",
    parameters=_parameters(normalize=False, rescale="l1"),
    merge=partial(merge_task_vectors, mask=keep_random, consensus=elect_signs),
    needs_base=True,
    weighs_base=False,
    ignored=frozenset({"int8_mask"}),
)

DARE_LINEAR = Method(
    name="dare_linear",
    citation="Yu et al. 2024, Language models are super Mario (DARE), arXiv:2311.03099",
    parameters=_parameters(normalize=False, rescale="l1"),
    merge=partial(merge_task_vectors, mask=keep_random, consensus=add_all),
    needs_base=True,
    weighs_base=False,
    ignored=frozenset({"int8_mask"}),
)

"""Merges of task vectors: base + λ · consensus(weight · sparsify(θ - base)).

A task vector is what fine-tuning added to the base (Ilharco et al. 2023). The methods of this
family differ in which elements they keep of each vector and in how they settle disagreement. Each
method is a pair of these two choices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from evomerge.errors import EvomergeError
from evomerge.merge.kernels import (
    KEEP_ALL,
    KEEP_BAND,
    KEEP_RANDOM,
    KEEP_RANKED,
    TABLE_BYTES,
    Mask,
    absolute_sums,
    combine_task_vectors,
    count_magnitudes,
    exact_sums,
    low_bits_in_order,
    magnitude_at,
    magnitudes_at,
    rescaled,
    row_ranks,
    runs_here,
    sum_below,
    sums_by_draw,
)
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec

if TYPE_CHECKING:
    import torch

Sparsify = Callable[[Inputs, int, float], Mask | None]
"""(inputs, member, density in (0, 1)) -> what to keep of its task vector; None for nothing."""

_TABLED = 2**17
"""From this number of elements on, sums over random masks use a table; it has 2**16 entries."""

_SMALLEST_SUM = 1e-7  # |δ| sums under this are not rescaled
_SMALLEST_DIVISOR = 1e-8  # sums of weights under this are not divided by


def keep_largest(inputs: Inputs, member: int, density: float) -> Mask:
    """The largest ⌊density·n⌋ magnitudes, one at least (Yadav et al. 2023, trim).

    Magnitudes equal to the smallest of these are all kept: none is preferred by its position.
    """
    count = _elements(inputs)
    return _band(inputs, member, count - max(1, int(density * count)), count - 1)


def keep_without_outliers(inputs: Inputs, member: int, density: float) -> Mask | None:
    """The largest ⌊density·n⌋ magnitudes after the ⌊gamma·n⌋ outliers (Davari, Belilovsky 2024).

    Fewer outliers are dropped where too few elements would be left. Magnitudes equal to the bounds
    are kept.
    """
    count = _elements(inputs)
    kept = int(density * count)
    lowest = max(0, count - kept - int(inputs.number("gamma", member) * count))
    return _band(inputs, member, lowest, lowest + kept - 1) if kept else None


def keep_random(inputs: Inputs, member: int, density: float) -> Mask:
    """Each element by itself with probability `density` (Yu et al. 2024, drop)."""
    return Mask(kind=KEEP_RANDOM, key=inputs.draw_key(member), probability=density)


def keep_by_rank(inputs: Inputs, member: int, density: float) -> Mask:
    """Each element with a probability that grows with its rank (Deep et al. 2024, MAGPRUNE).

    The rank is that of its magnitude in its row; probabilities go from density - ε to density + ε.

    Raises EvomergeError where a probability is not inside (0, 1).
    """
    epsilon = inputs.number("epsilon", member)
    if not (density - epsilon > 0.0 and density + epsilon < 1.0):
        raise EvomergeError(
            f"epsilon: density {density:g} ± {epsilon:g} leaves (0, 1) for {inputs.name}; "
            "give a smaller epsilon"
        )
    assert inputs.base is not None
    shape = inputs.shape
    width = _elements(inputs) // shape[0] if len(shape) > 1 else _elements(inputs)
    if width < 2:
        return Mask(kind=KEEP_RANDOM, key=inputs.draw_key(member), probability=density)
    base = inputs.stored(inputs.base)
    ranks = inputs.cached(
        f"ranks in rows of {width}",
        (member, inputs.base),
        lambda: row_ranks(base, inputs.stored(member), width),
    )
    return Mask(
        kind=KEEP_RANKED,
        key=inputs.draw_key(member),
        probability=density - epsilon,
        slope=2.0 * epsilon / (width - 1),
        ranks=ranks,
    )


def _band(inputs: Inputs, member: int, lowest: int, highest: int) -> Mask:
    """Keep the magnitudes between two places in ascending order, both included."""
    assert inputs.base is not None
    pair = (member, inputs.base)
    base, expert = inputs.stored(inputs.base), inputs.stored(member)
    counts = inputs.cached("magnitudes counted", pair, lambda: count_magnitudes(base, expert))
    low_bits = None
    if inputs.keeps("magnitudes in order", pair, 2 * base.numel()):
        low_bits = inputs.cached(
            "magnitudes in order", pair, lambda: low_bits_in_order(base, expert)
        )
    if low_bits is None and not runs_here(base):
        return Mask(kind=KEEP_BAND, bounds=magnitudes_at((lowest, highest), counts, base, expert))
    low = magnitude_at(lowest, counts, low_bits, base, expert)
    if highest == base.numel() - 1:
        return Mask(kind=KEEP_BAND, low=low)
    return Mask(kind=KEEP_BAND, low=low, high=magnitude_at(highest, counts, low_bits, base, expert))


def _elements(inputs: Inputs) -> int:
    return int(np.prod(inputs.shape, dtype=np.int64))


def merge_task_vectors(
    inputs: Inputs, out: torch.Tensor, *, sparsify: Sparsify | None, elect: bool
) -> None:
    """Write base + λ · consensus of the sparsified task vectors into `out`.

    elect: whether only what agrees with the sign of the sum counts (Yadav et al. 2023); zero counts
    as positive in the vote and never as agreeing.
    """
    assert inputs.base is not None
    base = inputs.stored(inputs.base)
    weights = {member: inputs.number("weight", member) for member in inputs.experts}
    masks = {
        member: _mask(inputs, member, sparsify)
        for member in inputs.experts
        if weights[member] != 0.0 and base.numel() > 0
    }
    kept = {member: mask for member, mask in masks.items() if mask is not None}
    if not kept:
        out.copy_(base)
        return
    # Without election, normalising divides by all weights, also those of models dropped whole.
    rest = sum(np.float32(weight) for member, weight in weights.items() if member not in kept)
    combine_task_vectors(
        base,
        [inputs.stored(member) for member in kept],
        _factors(inputs, kept, weights, sparsify),
        list(kept.values()),
        out,
        weights=[weights[member] for member in kept],
        left_out=0.0 if elect else float(rest),
        elect=elect,
        normalize=inputs.switch("normalize"),
        strength=inputs.number("lambda"),
    )


def whole_vectors(inputs: Inputs, *, thinned: bool) -> tuple[float, ...] | None:
    """λw for each expert and the rest for the base; None where a task vector is not kept whole.

    thinned: whether the method reads a density. The divisor when normalising: 1 for a sum near 0.
    """
    if thinned and any(inputs.number("density", member) < 1.0 for member in inputs.experts):
        return None
    weights = {member: inputs.number("weight", member) for member in inputs.experts}
    total = float(sum(np.float32(weight) for weight in weights.values()))
    divisor = total if inputs.switch("normalize") and abs(total) >= _SMALLEST_DIVISOR else 1.0
    shares = {
        member: inputs.number("lambda") * weight / divisor for member, weight in weights.items()
    }
    rest = 1.0 - sum(shares.values())
    return tuple(shares.get(member, rest) for member in inputs.members)


def _mask(inputs: Inputs, member: int, sparsify: Sparsify | None) -> Mask | None:
    if sparsify is None:
        return Mask(kind=KEEP_ALL)
    density = inputs.number("density", member)
    if density >= 1.0:
        return Mask(kind=KEEP_ALL)
    return sparsify(inputs, member, density) if density > 0.0 else None


def _factors(
    inputs: Inputs,
    masks: Mapping[int, Mask],
    weights: Mapping[int, float],
    sparsify: Sparsify | None,
) -> Sequence[float] | torch.Tensor:
    """The weight of each member times what makes up for its dropped elements."""
    rescale = "none" if sparsify is None else inputs.choice("rescale")
    masked = [member for member, mask in masks.items() if mask.kind != KEEP_ALL]
    factors = dict.fromkeys(masks, 1.0)
    if rescale == "density":
        factors |= {member: 1.0 / inputs.number("density", member) for member in masked}
    if rescale == "l1" and masked:
        # Decide by the shape alone: whether a table is kept must not change the last bit.
        tabled = _elements(inputs) >= _TABLED
        if not (tabled and all(masks[member].kind == KEEP_RANDOM for member in masked)):
            return _rescaled(inputs, masks, weights)
        for member in masked:
            before, after = _magnitudes(inputs, member, masks[member])
            if min(before, after) >= _SMALLEST_SUM:
                factors[member] = before / after
    return [weights[member] * factor for member, factor in factors.items()]


def _magnitudes(inputs: Inputs, member: int, mask: Mask) -> tuple[float, float]:
    """Σ |δ| of a member's task vector, and over what its random mask keeps, from a table."""
    assert inputs.base is not None
    pair = (member, inputs.base)
    base, expert = inputs.stored(inputs.base), inputs.stored(member)
    kind = f"magnitudes by draw of {mask.key}"
    # The same sums, where they are found: a table that is not kept is not worth making.
    if not inputs.keeps(kind, pair, TABLE_BYTES):
        found = exact_sums(base, expert, mask.key, mask.probability)
        if found is not None:
            return found
    table = inputs.cached(kind, pair, lambda: sums_by_draw(base, expert, mask.key))
    return float(table[-1]), sum_below(table, mask.probability)


def _rescaled(
    inputs: Inputs, masks: Mapping[int, Mask], weights: Mapping[int, float]
) -> Sequence[float] | torch.Tensor:
    """As `_factors` by the sums of magnitudes, computed anew for the masks."""
    assert inputs.base is not None
    base = inputs.stored(inputs.base)
    experts = [inputs.stored(member) for member in masks]
    before = [0.0] * len(experts)
    for place, (member, expert) in enumerate(zip(masks, experts, strict=True)):
        if masks[member].kind != KEEP_ALL:
            make = partial(absolute_sums, base, [expert], [Mask()])
            pair = (member, inputs.base)
            before[place] = float(inputs.cached("sum of magnitudes", pair, make)[0])
    return rescaled(
        base,
        experts,
        list(masks.values()),
        weights=[weights[member] for member in masks],
        before=before,
        smallest=_SMALLEST_SUM,
    )


def _parameters(
    *, normalize: bool, rescale: str | None, **more: ParameterSpec
) -> Mapping[str, ParameterSpec]:
    """Parameters of a method of the family; no `density` and `rescale` where nothing is dropped."""
    parameters = {
        "weight": ParameterSpec(kind="number", scope="model", search=(0.0, 1.5)),
        "lambda": ParameterSpec(kind="number", scope="recipe", default=1.0, search=(0.5, 2.0)),
        "normalize": ParameterSpec(kind="switch", scope="recipe", default=normalize),
        **more,
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
        # mergekit writes true for l1 and false for none.
        "rescale": ParameterSpec(
            kind="choice", scope="recipe", default=rescale, choices=("l1", "density", "none")
        ),
    }


_GAMMA = ParameterSpec(
    kind="number",
    scope="model",
    default=0.01,
    allowed=(0.0, 1.0),
    mend="give the fraction of the largest magnitudes to drop",
    search=(0.0, 0.05),
)
_EPSILON = ParameterSpec(
    kind="number",
    scope="model",
    default=0.15,
    allowed=(0.0, 0.5),
    mend="give how far probabilities go from the density, at most 0.5",
    search=(0.0, 0.2),
)


def _elected(inputs: Inputs) -> None:
    """Signs are elected element by element, so the result is no sum of whole tensors."""
    return None


def _method(
    name: str,
    citation: str,
    sparsify: Sparsify | None,
    *,
    elect: bool,
    normalize: bool,
    rescale: str | None,
    ignored: frozenset[str] = frozenset(),
    **more: ParameterSpec,
) -> Method:
    return Method(
        name=name,
        citation=citation,
        parameters=_parameters(normalize=normalize, rescale=rescale, **more),
        merge=partial(merge_task_vectors, sparsify=sparsify, elect=elect),
        needs_base=True,
        weighs_base=False,
        ignored=ignored,
        on_device=True,
        compiled=sparsify is not keep_by_rank,
        random=sparsify in (keep_random, keep_by_rank),
        sums="elected" if elect else "any",
        coefficients=_elected if elect else partial(whole_vectors, thinned=sparsify is not None),
        mergekit=True,
    )


_DARE = "Yu et al. 2024, Language models are super Mario (DARE), arXiv:2311.03099"
_BREADCRUMBS = "Davari, Belilovsky 2024, Model breadcrumbs, arXiv:2312.06795"
_DELLA = "Deep et al. 2024, DELLA-Merging, arXiv:2406.11617"
_ELECTED = "; signs elected as in TIES"

TASK_ARITHMETIC = _method(
    "task_arithmetic",
    "Ilharco et al. 2023, Editing models with task arithmetic, arXiv:2212.04089",
    None,
    elect=False,
    normalize=False,
    rescale=None,
    ignored=frozenset({"density", "rescale"}),
)
TIES = _method(
    "ties",
    "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708",
    keep_largest,
    elect=True,
    normalize=True,
    rescale="none",
)
DARE_LINEAR = _method("dare_linear", _DARE, keep_random, elect=False, normalize=False, rescale="l1")
DARE_TIES = _method(
    "dare_ties", _DARE + _ELECTED, keep_random, elect=True, normalize=False, rescale="l1"
)
BREADCRUMBS = _method(
    "breadcrumbs",
    _BREADCRUMBS,
    keep_without_outliers,
    elect=False,
    normalize=False,
    rescale="none",
    gamma=_GAMMA,
)
BREADCRUMBS_TIES = _method(
    "breadcrumbs_ties",
    _BREADCRUMBS + _ELECTED,
    keep_without_outliers,
    elect=True,
    normalize=False,
    rescale="none",
    gamma=_GAMMA,
)
DELLA_LINEAR = _method(
    "della_linear",
    _DELLA,
    keep_by_rank,
    elect=False,
    normalize=False,
    rescale="l1",
    epsilon=_EPSILON,
)
DELLA = _method(
    "della",
    _DELLA + _ELECTED,
    keep_by_rank,
    elect=True,
    normalize=True,
    rescale="l1",
    epsilon=_EPSILON,
)

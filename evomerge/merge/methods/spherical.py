"""Averages that keep lengths: on the arc between two models, and on the sphere of several.

Each is a weighted sum of the models. Its weights follow from the inner products of their tensors;
the functions that compute them are pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import EvomergeError
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec
from evomerge.merge.methods.geometry import Vectors, inner_products, write_sum

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]

_NEARLY_PARALLEL = 0.9995  # slerp is a straight line beyond this cosine
_SMALLEST_NORM = 1e-8
_SMALLEST_TASK_NORM = 1e-7
_SMALLEST_SINE = 1e-8
_SMALLEST_TOTAL = 1e-6


def slerp_coefficients(products: Array, t: float) -> Array:
    """[sin((1-t)Ω), sin(tΩ)] / sin Ω, Ω the angle between two vectors (Shoemake 1985).

    products: (2, 2), their inner products. Beyond a cosine of 0.9995 either way: [1-t, t].
    """
    norms = np.sqrt(np.diagonal(products))
    scale = math.prod(norm if norm > _SMALLEST_NORM else 1.0 for norm in norms)
    cosine = max(-1.0, min(1.0, products[0, 1] / scale))
    if abs(cosine) > _NEARLY_PARALLEL:
        return np.array([1.0 - t, t])
    angle = math.acos(cosine)
    return np.array([math.sin((1.0 - t) * angle), math.sin(t * angle)]) / math.sin(angle)


def nuslerp_coefficients(products: Array, t: float) -> Array:
    """As slerp's, but linear only where two vectors are parallel to 1e-8.

    products: (..., 2, 2), for any number of pairs. Returns (..., 2).
    """
    norms = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1)).clip(min=_SMALLEST_TASK_NORM)
    cosine = (products[..., 0, 1] / norms.prod(axis=-1)).clip(-1.0, 1.0)
    straight = 1.0 - cosine**2 <= _SMALLEST_SINE**2
    angle = np.arccos(np.where(straight, 0.0, cosine))
    arc = np.stack([np.sin((1.0 - t) * angle), np.sin(t * angle)], axis=-1)
    arc /= np.sin(angle)[..., None]
    return np.where(straight[..., None], np.array([1.0 - t, t]), arc)


def multislerp_coefficients(products: Array, weights: Array, eps: float) -> Array | None:
    """Weights of the vectors whose sum is the mean direction μ at the mean length (Goddard 2025).

    With u = x / (‖x‖ + eps): μ = Σ wu / ‖Σ wu‖, times Σ w‖x‖. The method's step in the tangent
    space at μ is zero, because Σ w(u - ⟨u, μ⟩μ) = ‖Σ wu‖(μ - μ); only its factor cos(0 + eps) is
    left. products: (m, m). Returns None where ‖Σ wu‖ is below eps: there is no direction then.
    """
    norms = np.sqrt(np.diagonal(products))
    units = weights / (norms + eps)
    length = math.sqrt(max(0.0, float(units @ products @ units)))
    return None if length < eps else units * (math.cos(eps) * (weights @ norms) / length)


def karcher_coefficients(products: Array, max_iter: int, tol: float) -> Array:
    """Weights of the vectors whose sum is their Riemannian mean direction at their mean length.

    Karcher 1977; at most `max_iter` steps, until one is shorter than `tol` radians. Vectors of a
    length up to `tol` have no direction and count for the mean length only. products: (m, m).
    """
    norms = np.sqrt(np.diagonal(products))
    coefficients = np.zeros(len(norms))
    pointing = norms > tol
    if not pointing.any():
        return coefficients
    cosines = products[np.ix_(pointing, pointing)] / np.outer(norms[pointing], norms[pointing])
    mean = _karcher_mean(cosines, max_iter, tol)
    coefficients[pointing] = norms.mean() * mean / norms[pointing]
    return coefficients


def _karcher_mean(cosines: Array, max_iter: int, tol: float) -> Array:
    """The mean as a weighted sum of the unit vectors; (m,) from (m, m)."""

    def length(weights: Array) -> float:
        return math.sqrt(max(0.0, float(weights @ cosines @ weights)))

    count = len(cosines)
    mean = np.full(count, 1.0 / count)
    mean = mean / length(mean) if length(mean) >= tol else np.eye(count)[0]
    for _ in range(max_iter):
        dots = (cosines @ mean).clip(-1.0, 1.0)
        angles = np.arccos(dots)
        # Where a vector is the mean itself, or its opposite, no direction leads to it.
        apart = (angles >= tol) & (np.sin(angles) >= tol)
        pulls = np.divide(angles, np.sin(angles), out=np.zeros(count), where=apart) / count
        step = pulls - (pulls @ dots) * mean
        size = length(step)
        if size < tol:
            break
        mean = math.cos(size) * mean + math.sin(size) / size * step
        mean = mean / length(mean)
    return mean


def merge_slerp(inputs: Inputs, out: torch.Tensor) -> None:
    """The point at `t` on the arc from the base to the other model, whole tensors as vectors."""
    assert inputs.base is not None
    members = (inputs.base, *inputs.experts)
    coefficients = slerp_coefficients(inner_products(inputs, members), inputs.number("t"))
    write_sum(inputs, members, coefficients, out)


def merge_nuslerp(inputs: Inputs, out: torch.Tensor) -> None:
    """The point on the arc between two models, by their weights; relative to a base if given."""
    experts = inputs.experts
    first, second = (inputs.number("weight", member) for member in experts)
    total = first + second
    t = second / total if abs(total) >= _SMALLEST_TOTAL else 0.5
    vectors: Vectors = "whole"
    if not inputs.switch("nuslerp_flatten"):
        vectors = "columns" if inputs.switch("nuslerp_row_wise") else "rows"
    products = inner_products(inputs, experts, origin=inputs.base, vectors=vectors)
    coefficients = nuslerp_coefficients(products, t)
    write_sum(inputs, experts, coefficients, out, origin=inputs.base, vectors=vectors)


def merge_multislerp(inputs: Inputs, out: torch.Tensor) -> None:
    """The weighted mean direction of several models, or of their task vectors, at the mean length.

    Two directions that cancel are averaged linearly, and so are tensors where every vector has
    length zero. Raises EvomergeError where the weights sum to zero, and where more than two
    directions cancel.
    """
    experts = inputs.experts
    if len(experts) == 1:
        out.copy_(inputs.stored(experts[0]))
        return
    weights = np.array([inputs.number("weight", member) for member in experts])
    if inputs.switch("normalize_weights"):
        if weights.sum() == 0.0:
            raise EvomergeError(
                f"multislerp: the weights of {inputs.name} sum to 0; give a positive sum or "
                "normalize_weights: false"
            )
        weights = weights / weights.sum()
    products = inner_products(inputs, experts, origin=inputs.base)
    eps = inputs.number("eps")
    coefficients = multislerp_coefficients(products, weights, eps)
    # Vectors of length zero (layers that no fine-tuning changed) do not cancel.
    if coefficients is None and len(experts) > 2 and products.max(initial=0.0) >= eps**2:
        raise EvomergeError(
            f"multislerp: the models' directions in {inputs.name} cancel; give other weights"
        )
    chosen = weights if coefficients is None else coefficients
    write_sum(inputs, experts, chosen, out, origin=inputs.base)


def merge_karcher(inputs: Inputs, out: torch.Tensor) -> None:
    """The Riemannian mean direction of all models, the base among them, at their mean length."""
    members = tuple(inputs.members)
    coefficients = np.ones(1)
    if len(members) > 1:
        steps, tol = int(inputs.number("max_iter")), inputs.number("tol")
        coefficients = karcher_coefficients(inner_products(inputs, members), steps, tol)
    write_sum(inputs, members, coefficients, out)


_WEIGHT = ParameterSpec(kind="number", scope="model", search=(0.0, 1.0))

SLERP = Method(
    name="slerp",
    citation="Shoemake 1985, Animating rotation with quaternion curves, SIGGRAPH",
    parameters={"t": ParameterSpec(kind="number", scope="recipe", search=(0.0, 1.0))},
    merge=merge_slerp,
    needs_base=True,
    weighs_base=False,
    min_models=2,
    max_models=2,
    on_device=True,
    compiled=True,
    sums="single",
    mergekit=True,
)

NUSLERP = Method(
    name="nuslerp",
    citation="Goddard et al. 2024, Arcee's MergeKit (nuslerp), arXiv:2403.13257",
    parameters={
        "weight": _WEIGHT,
        "nuslerp_flatten": ParameterSpec(kind="switch", scope="recipe", default=True),
        "nuslerp_row_wise": ParameterSpec(kind="switch", scope="recipe", default=False),
    },
    merge=merge_nuslerp,
    needs_base=False,
    weighs_base=False,
    min_models=2,
    experts=2,
    on_device=True,
    sums="single",
    mergekit=True,
)

MULTISLERP = Method(
    name="multislerp",
    citation="Goddard 2025, Multi-SLERP, goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    parameters={
        "weight": _WEIGHT,
        "normalize_weights": ParameterSpec(kind="switch", scope="recipe", default=True),
        "eps": ParameterSpec(
            kind="number",
            scope="recipe",
            default=1e-8,
            allowed=(1e-30, math.inf),
            mend="give a small positive number",
        ),
    },
    merge=merge_multislerp,
    needs_base=False,
    weighs_base=False,
    on_device=True,
    compiled=True,
    sums="single",
    mergekit=True,
)

KARCHER = Method(
    name="karcher",
    citation="Karcher 1977, Riemannian center of mass, CPAM 30(5); for models arXiv:2603.04972",
    parameters={
        "max_iter": ParameterSpec(
            kind="number",
            scope="recipe",
            default=10.0,
            allowed=(0.0, 1000.0),
            mend="give a whole number of steps",
        ),
        "tol": ParameterSpec(
            kind="number",
            scope="recipe",
            default=1e-5,
            allowed=(1e-30, math.inf),
            mend="give a small positive number",
        ),
    },
    merge=merge_karcher,
    needs_base=False,
    weighs_base=True,
    on_device=True,
    compiled=True,
    mergekit=True,
)

"""Merges of task matrices by their singular values: isotropic merging and task singular vectors.

Both treat the task vector of a weight matrix as a matrix; tensors of other dimensions are averaged.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.errors import EvomergeError
from evomerge.merge.kernels import weighted_sum
from evomerge.merge.kernels.inner_products import one_thread
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec

Decomposition: TypeAlias = "tuple[torch.Tensor, torch.Tensor, torch.Tensor]"
"""U (rows, r), s (r,) descending, V transposed (r, columns), float32."""


def merge_isotropic(inputs: Inputs, out: torch.Tensor) -> None:
    """θ₀ + λ σ̄ UVᵀ, where USVᵀ = Σ wδ and σ̄ is the mean of S (Marczak et al. 2025, Iso-C).

    Tensors that are not matrices: θ₀ + λ mean(wδ), as in the authors' code. Directions with a
    singular value of zero up to rounding are left out, also of the mean. Otherwise a sum of
    low-rank adapters would be spread over directions in which nothing was learnt.

    Raises EvomergeError where a task vector is not finite.
    """
    experts = [member for member in inputs.experts if inputs.number("weight", member) != 0.0]
    assert inputs.base is not None
    if len(inputs.shape) != 2 or not experts:
        _add_mean(inputs, out)
        return
    total = torch.zeros(inputs.shape)
    for member in experts:
        total += inputs.task_vector(member) * inputs.number("weight", member)
    with one_thread():
        u, s, vt = _decompose(total, inputs.name)
        isotropic = u @ vt
    if len(s) == 0:
        out.copy_(inputs.stored(inputs.base))
        return
    strength = inputs.number("lambda") * float(s.double().mean())
    out.copy_(inputs.tensor(inputs.base) + isotropic * strength)


def merge_singular_vectors(inputs: Inputs, out: torch.Tensor) -> None:
    """θ₀ + λ Σ w U⊥ᵢSᵢV⊥ᵢᵀ (Gargiulo et al. 2025, TSV-M).

    UᵢSᵢVᵢᵀ holds the largest singular values of expert i: the same number for each expert, and
    min(rows, columns) in total. U⊥ = [U⊥₁ ...] is the matrix with orthonormal columns that is
    nearest to [U₁ U₂ ...]; V⊥ likewise. A weight scales the singular values of its expert and
    leaves the vectors as they are. So the matrices U⊥ᵢSᵢV⊥ᵢᵀ are made once, and a merge is a
    weighted sum of them. Singular values that are zero up to rounding are left out with their
    vectors, which are arbitrary and would distort the others. Other tensors: θ₀ + λ mean(wδ), as in
    the authors' code; the same for matrices with fewer rows or columns than there are experts.

    Raises EvomergeError where a task vector is not finite.
    """
    assert inputs.base is not None
    if len(inputs.shape) != 2 or min(inputs.shape) < len(inputs.experts):
        _add_mean(inputs, out)
        return
    members = (*inputs.experts, inputs.base)
    parts = inputs.cached(
        "decorrelated task matrices", members, lambda: decorrelate_task_matrices(inputs)
    )
    strength = inputs.number("lambda")
    weights = [strength * inputs.number("weight", member) for member in inputs.experts]
    matrices = [torch.from_numpy(part) for part in parts]
    weighted_sum([inputs.stored(inputs.base), *matrices], np.array([1.0, *weights]), out)


def decorrelate_task_matrices(inputs: Inputs) -> NDArray[np.float32]:
    """U⊥ᵢSᵢV⊥ᵢᵀ of every expert, (experts, rows, columns); see `merge_singular_vectors`."""
    rank_per_expert = min(inputs.shape) // len(inputs.experts)
    parts = np.zeros((len(inputs.experts), *inputs.shape), dtype=np.float32)
    with one_thread():
        kept = []
        for member in inputs.experts:
            u, s, vt = _decompose(inputs.task_vector(member), inputs.name)
            kept.append((u[:, :rank_per_expert], s[:rank_per_expert], vt[:rank_per_expert]))
        left = nearest_orthonormal(torch.cat([u for u, _, _ in kept], dim=1), inputs.name)
        right = nearest_orthonormal(torch.cat([vt for _, _, vt in kept]).T, inputs.name).T
        start = 0
        for index, (_, s, _) in enumerate(kept):
            own = slice(start, start + len(s))
            parts[index] = ((left[:, own] * s) @ right[own]).numpy()
            start += len(s)
    return parts


def nearest_orthonormal(matrix: torch.Tensor, name: str) -> torch.Tensor:
    """The matrix with orthonormal columns that is nearest to `matrix`, (rows, columns <= rows).

    This solves the orthogonal Procrustes problem (Schönemann 1966): all singular values are set to
    1.
    """
    u, _, vt = _svd(matrix, name)
    return u @ vt


def _decompose(matrix: torch.Tensor, name: str) -> Decomposition:
    """The decomposition without singular values that are zero up to float32 rounding."""
    u, s, vt = _svd(matrix, name)
    if s.numel() == 0:
        return u, s, vt
    rank = int((s > s[0] * max(matrix.shape) * torch.finfo(torch.float32).eps).sum())
    return u[:, :rank], s[:rank], vt[:rank]


def _svd(matrix: torch.Tensor, name: str) -> Decomposition:
    if not bool(torch.isfinite(matrix).all()):
        raise EvomergeError(f"{name}: its task vectors hold NaN or infinity; mend the checkpoints")
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vt


def _add_mean(inputs: Inputs, out: torch.Tensor) -> None:
    """θ₀ + λ mean(wδ)."""
    assert inputs.base is not None
    result = inputs.tensor(inputs.base)
    factor = inputs.number("lambda") / max(1, len(inputs.experts))
    for member in inputs.experts:
        result = result + inputs.task_vector(member) * (factor * inputs.number("weight", member))
    out.copy_(result)


_PARAMETERS = {
    "weight": ParameterSpec(kind="number", scope="model", search=(0.0, 1.5)),
    "lambda": ParameterSpec(kind="number", scope="recipe", default=1.0, search=(0.5, 2.0)),
}

ISO_C = Method(
    name="iso_c",
    citation=(
        "Marczak et al. 2025, No task left behind: isotropic model merging with common and "
        "task-specific subspaces, arXiv:2502.04959"
    ),
    parameters=_PARAMETERS,
    merge=merge_isotropic,
    needs_base=True,
    weighs_base=False,
    min_models=2,
)
TSV = Method(
    name="tsv",
    citation=(
        "Gargiulo et al. 2025, Task singular vectors: reducing task interference in model merging, "
        "arXiv:2412.00081"
    ),
    parameters=_PARAMETERS,
    merge=merge_singular_vectors,
    needs_base=True,
    weighs_base=False,
    min_models=2,
)

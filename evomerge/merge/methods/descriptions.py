"""What each merge method computes and when to use it, in a line, for lists and pages.

θ is a model, θ₀ the base, δ = θ − θ₀, w are weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Description:
    """A method in words.

    computes: its formula. use_for: when to use it. searchable: whether it has numbers that a search
    space can search; it is stated here so that a list need not import torch.
    """

    computes: str
    use_for: str
    searchable: bool = True


DESCRIPTIONS: Mapping[str, Description] = {
    "linear": Description(
        computes="Σwθ / Σw",
        use_for="checkpoints of one run, or similar models; soups, SWA and LAWA use it",
    ),
    "slerp": Description(
        computes="[sin((1−t)Ω)·a + sin(tΩ)·b] / sin Ω, Ω the angle between a and b",
        use_for="two related models; the lengths of their vectors are kept",
    ),
    "nuslerp": Description(
        computes="slerp with t = w₂ / Σw; with a base, of δ; by rows or columns if set",
        use_for="two models, as slerp, with weights or by rows",
    ),
    "multislerp": Description(
        computes=(
            "the weighted mean of θ/‖θ‖ in the tangent space at their normed mean, times Σw‖θ‖"
        ),
        use_for="several models that were fine-tuned far from each other",
    ),
    "karcher": Description(
        computes="the Riemannian mean of θ/‖θ‖, times the mean length",
        use_for="several models with equal weight; nothing to tune",
        searchable=False,
    ),
    "task_arithmetic": Description(
        computes="θ₀ + λ Σwδ",
        use_for="a first try with fine-tunes of one base; a negative weight removes a skill",
    ),
    "ties": Description(
        computes="θ₀ + λ Σwδ / Σw over the largest δ that agree with the elected sign",
        use_for="experts that disagree in sign",
    ),
    "dare_linear": Description(
        computes="θ₀ + λ Σw·drop(δ), each element kept at random, and the kept ones rescaled",
        use_for="long fine-tuning with redundant changes",
    ),
    "dare_ties": Description(
        computes="as dare_linear, with signs elected",
        use_for="the same, where experts disagree in sign; the paper's parameter space",
    ),
    "breadcrumbs": Description(
        computes="θ₀ + λ Σwδ without the largest and the smallest of each δ",
        use_for="single large changes that may do harm",
    ),
    "breadcrumbs_ties": Description(
        computes="as breadcrumbs, with signs elected",
        use_for="the same, where experts disagree in sign",
    ),
    "della": Description(
        computes=(
            "θ₀ + λ Σwδ, each element kept with a probability that rises with its rank; "
            "signs elected"
        ),
        use_for="as a next step after dare_ties, which drops elements regardless of their size",
    ),
    "della_linear": Description(
        computes="as della, no signs elected",
        use_for="as a next step after dare_linear",
    ),
    "model_stock": Description(
        computes="t·mean(θ) + (1−t)·θ₀, t = Nc / (1 + (N−1)c), c the mean cosine of the δ",
        use_for="fine-tunes of one kind; no weight to choose",
        searchable=False,
    ),
    "nearswap": Description(
        computes="wb + (1−w)a, w = clip(t / |a−b|, 0, 1)",
        use_for="adding a little of a second model to a model that must change very little",
    ),
    "sce": Description(
        computes=(
            "θ₀ + Σwδ / Σw over the elements that vary most, w the share of squares, signs elected"
        ),
        use_for="many experts, if a weight for each would be too many genes",
    ),
    "arcee_fusion": Description(
        computes="θ₀ + δ where |δ|·KL(softmax θ ‖ softmax θ₀) is at least its median + 1.5·IQR",
        use_for="one expert, to keep only its important changes",
        searchable=False,
    ),
    "ram": Description(
        computes="θ₀ + the mean of the δ beyond epsilon, element by element",
        use_for="experts from reinforcement learning: sparse changes that overlap little",
        searchable=False,
    ),
    "ramplus_tl": Description(
        computes=(
            "as ram; changes of one model alone are multiplied by 1 + r·clip(shared/own, 0, alpha)"
        ),
        use_for="the same, with more weight for changes that are not shared",
    ),
    "passthrough": Description(
        computes="scale·θ + shift, with one model in each slice",
        use_for="restacked layers: Frankenmerges, folded routes",
    ),
    "fisher": Description(
        computes="ΣwFθ / ΣwF, F the diagonal of the empirical Fisher information",
        use_for="text of each expert's task is available, and elements differ in importance",
    ),
    "regmean": Description(
        computes=(
            "(ΣwG)⁻¹ ΣwGW for linear layers, G = XᵀX of a layer's inputs, off-diagonals times alpha"
        ),
        use_for=(
            "text of each expert's task is available, and memory for a Gram matrix of each layer"
        ),
    ),
    "gradient_matching": Description(
        computes="θ₀ + Σw (H₀+H)/(H₀+ΣwH)·δ, H the diagonal Hessians",
        use_for="text of each expert's task is available, and the merge should stay near the base",
    ),
    "iso_c": Description(
        computes="θ₀ + λ σ̄ UVᵀ, USVᵀ = Σwδ, σ̄ the mean of S",
        use_for="many experts of different tasks, small models",
    ),
    "tsv": Description(
        computes="θ₀ + λ Σw U⊥SV⊥ᵀ, the leading singular vectors of each δ, decorrelated",
        use_for="many experts of different tasks",
    ),
}
"""merge_method of a recipe -> its description, for evomerge's own methods."""

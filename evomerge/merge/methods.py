"""The registry of merge methods. One file a family; a new method is a line here."""

from __future__ import annotations

from evomerge.merge.arcee_fusion import ARCEE_FUSION
from evomerge.merge.averages import LINEAR
from evomerge.merge.fisher import FISHER
from evomerge.merge.gradient_matching import GRADIENT_MATCHING
from evomerge.merge.method import Method
from evomerge.merge.model_stock import MODEL_STOCK
from evomerge.merge.nearswap import NEARSWAP
from evomerge.merge.passthrough import PASSTHROUGH
from evomerge.merge.ram import RAM, RAMPLUS_TL
from evomerge.merge.regmean import REGMEAN
from evomerge.merge.sce import SCE
from evomerge.merge.singular_values import ISO_C, TSV
from evomerge.merge.spherical import KARCHER, MULTISLERP, NUSLERP, SLERP
from evomerge.merge.task_vectors import (
    BREADCRUMBS,
    BREADCRUMBS_TIES,
    DARE_LINEAR,
    DARE_TIES,
    DELLA,
    DELLA_LINEAR,
    TASK_ARITHMETIC,
    TIES,
)

METHODS: dict[str, Method] = {
    "linear": LINEAR,
    "slerp": SLERP,
    "nuslerp": NUSLERP,
    "multislerp": MULTISLERP,
    "karcher": KARCHER,
    "task_arithmetic": TASK_ARITHMETIC,
    "ties": TIES,
    "dare_linear": DARE_LINEAR,
    "dare_ties": DARE_TIES,
    "breadcrumbs": BREADCRUMBS,
    "breadcrumbs_ties": BREADCRUMBS_TIES,
    "della": DELLA,
    "della_linear": DELLA_LINEAR,
    "model_stock": MODEL_STOCK,
    "nearswap": NEARSWAP,
    "sce": SCE,
    "arcee_fusion": ARCEE_FUSION,
    "ram": RAM,
    "ramplus_tl": RAMPLUS_TL,
    "passthrough": PASSTHROUGH,
    "fisher": FISHER,
    "regmean": REGMEAN,
    "gradient_matching": GRADIENT_MATCHING,
    "iso_c": ISO_C,
    "tsv": TSV,
}
"""merge_method of a recipe -> the method."""

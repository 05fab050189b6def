"""The registry of merge methods: one file for each family, one line here for each method.

Installed packages add methods through entry points of the group `evomerge.merge_methods`. Each
entry point has the name of a method and the place of its `Method`. It is imported only when a
recipe or a search space names the method.
"""

from __future__ import annotations

from dataclasses import replace

from evomerge.errors import RecipeError
from evomerge.merge.methods.averages import LINEAR, PASSTHROUGH
from evomerge.merge.methods.base import Method
from evomerge.merge.methods.fisher import FISHER, GRADIENT_MATCHING
from evomerge.merge.methods.geometry import MODEL_STOCK
from evomerge.merge.methods.ram import RAM, RAMPLUS_TL
from evomerge.merge.methods.regmean import REGMEAN
from evomerge.merge.methods.sce import SCE
from evomerge.merge.methods.singular_values import ISO_C, TSV
from evomerge.merge.methods.spherical import KARCHER, MULTISLERP, NUSLERP, SLERP
from evomerge.merge.methods.swaps import ARCEE_FUSION, NEARSWAP
from evomerge.merge.methods.task_vectors import (
    BREADCRUMBS,
    BREADCRUMBS_TIES,
    DARE_LINEAR,
    DARE_TIES,
    DELLA,
    DELLA_LINEAR,
    TASK_ARITHMETIC,
    TIES,
)
from evomerge.registry import Registry

BUILT_IN: dict[str, Method] = {
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
"""merge_method of a recipe -> the method, for evomerge's own methods."""


def _read(found: object, name: str) -> Method | None:
    if isinstance(found, Method) and found.name == name:
        return replace(found, mergekit=False)
    return None


METHODS: Registry[Method] = Registry(
    key="merge_method",
    group="evomerge.merge_methods",
    built_in=BUILT_IN,
    read=_read,
    wanted="evomerge.merge.Method of that name",
    code=lambda method: method.merge,
    error=RecipeError,
)

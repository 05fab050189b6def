"""The registry of merge methods. One file a family; a new method is a line here.

Installed packages add methods of their own by entry points of the group `evomerge.merge_methods`,
each the name of a method and where its `Method` is. One is imported when a recipe or a search space
asks for its name, and not before.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from evomerge.errors import RecipeError, one_line
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
"""merge_method of a recipe -> the method, of evomerge's own."""

GROUP = "evomerge.merge_methods"


class Registry(Mapping[str, Method]):
    """Every method by name: evomerge's own, then those of installed packages.

    Looking one up raises RecipeError where its package cannot be used.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[Method, EntryPoint]] = {}

    @cached_property
    def _offered(self) -> dict[str, EntryPoint]:
        found = {point.name: point for point in entry_points(group=GROUP)}
        return {name: found[name] for name in sorted(found) if name not in BUILT_IN}

    def __getitem__(self, name: str) -> Method:
        if name in BUILT_IN:
            return BUILT_IN[name]
        if name not in self._loaded:
            point = self._offered[name]
            self._loaded[name] = _load(point), point
        return self._loaded[name][0]

    def __contains__(self, name: object) -> bool:
        return name in BUILT_IN or name in self._offered

    def __iter__(self) -> Iterator[str]:
        yield from BUILT_IN
        yield from self._offered

    def __len__(self) -> int:
        return len(BUILT_IN) + len(self._offered)

    def versions(self) -> dict[str, str]:
        """Method -> version of its package and digest of its file, of those in use not our own."""
        return {
            f"merge method {name}": f"{_package(point)} (sha256 {_digest(method)})"
            for name, (method, point) in sorted(self._loaded.items())
        }


METHODS = Registry()


def _load(point: EntryPoint) -> Method:
    where = f"merge_method: {point.name}, of {_package(point)}"
    try:
        method = point.load()
    except Exception as error:
        raise RecipeError(f"{where}, cannot be imported ({one_line(error)})") from error
    if not isinstance(method, Method) or method.name != point.name:
        raise RecipeError(
            f"{where}: {point.value} is no evomerge.merge.Method of that name; mend the "
            f"package's entry point in {GROUP}"
        )
    return replace(method, mergekit=False)


def _package(point: EntryPoint) -> str:
    return "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _digest(method: Method) -> str:
    try:
        file = inspect.getsourcefile(inspect.unwrap(method.merge))
    except TypeError:
        file = None
    return "unknown" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]

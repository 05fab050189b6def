"""Coefficients over depth in plain values, for pages that draw them as a heat map.

The numbers are those of the report's figures (`coefficients.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evomerge.recipe import Recipe
from evomerge.report.coefficients import coefficients_of
from evomerge.report.recipe_views import merges_so_far
from evomerge.report.tally import best_of
from evomerge.search import Selection, outcome_of, parent_labels
from evomerge.sources import Structure
from evomerge.study import Study


def depth_rows(study: Study, structure: Structure) -> list[dict[str, Any]]:
    """The merges so far: the best candidate, the winners of stages, the winner.

    Each has `title`, `label`, `depth`, `rows` (parameter, component, model, values by layer),
    `outer` (tensors outside the layers) and `fixed` (parameters with one value).
    """
    sources = study.job.models.sources
    names = dict(zip(sources, parent_labels(sources), strict=True))
    return [
        {"title": title, "label": label, **_rows_of(recipe, structure, names)}
        for title, label, recipe in _merges(study)
        if recipe.route is None
    ]


def _merges(study: Study) -> Iterator[tuple[str, str, Recipe]]:
    outcome = outcome_of(study)
    selection = outcome if isinstance(outcome, Selection) else None
    merges = merges_so_far(study, selection)
    yield from reversed(merges)
    best = best_of(trial for trial in study.trials if trial.kind == "genome")
    if best is not None and selection is None:
        yield "The best candidate so far", best.label, best.recipe


def _rows_of(recipe: Recipe, structure: Structure, names: Mapping[str, str]) -> dict[str, Any]:
    found = coefficients_of(recipe, structure)

    def called(model: str | None) -> str:
        return "" if model is None else names.get(model, model)

    return {
        "depth": structure.depth,
        "rows": [
            {
                "parameter": panel.parameter,
                "component": panel.component,
                "model": called(curve.model),
                "values": list(curve.values),
            }
            for panel in found.panels
            for curve in panel.curves
        ],
        "outer": [
            {
                "parameter": outer.parameter,
                "tensors": list(outer.tensors),
                "values": {
                    called(model): value
                    for model, value in zip(outer.models, outer.values, strict=True)
                },
            }
            for outer in found.outer
        ],
        "fixed": dict(found.fixed),
    }

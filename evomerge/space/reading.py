"""Where a search space comes from: a name in search_spaces/, a path, or a mapping in the job.

What is read is a mapping that says everything, so that a record can hold it; what its keys mean
is not known here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.documents import load_text, parse_mapping
from evomerge.errors import JobError, RecipeError
from evomerge.job import shipped_folder
from evomerge.recipe import load_recipe
from evomerge.space.checks import nearest
from evomerge.space.references import canonical


def read_space(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """A space as one mapping, the recipe of `start_from` written out in it.

    spec: a name in search_spaces/, the path of a YAML file, or the mapping itself. Local models
    in a `start_from` recipe become absolute paths. Raises JobError.
    """
    if isinstance(spec, str):
        path = find_space(spec)
        document, where, folder = _load(path), str(path), path.parent
    else:
        document, where, folder = dict(spec), "search_space", Path()
    if isinstance(start := document.get("start_from"), str):
        document["start_from"] = _recipe(folder / start, where=f"{where}.start_from")
    return document


def find_space(name: str) -> Path:
    """The file of a space given by name or path. Raises JobError with the nearest names."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        if not os.path.exists(name):
            raise JobError(f"search_space: {name}: no such file; check the path")
        return Path(name)
    shipped = {path.stem: path for path in sorted(shipped_folder("search_spaces").glob("*.yaml"))}
    if name not in shipped:
        raise JobError(f"search_space: {name}: no such space; {nearest(name, shipped)}")
    return shipped[name]


def _load(path: Path) -> dict[str, Any]:
    text = load_text(path, kind="a search space", error=JobError)
    expected = "method and parameters, or routes"
    return parse_mapping(text, where=str(path), expected=expected, error=JobError)


def _recipe(path: Path, *, where: str) -> dict[str, Any]:
    try:
        recipe = load_recipe(path)
    except RecipeError as error:
        raise JobError(f"{where}: {error}") from error
    if recipe.stages:
        raise JobError(f"{where}: {path}: is made of stages; name a recipe of one merge")
    written, expected = recipe.to_yaml(), "merge_method and models"
    document = parse_mapping(written, where=where, expected=expected, error=JobError)
    if recipe.base_model:
        document["base_model"] = canonical(recipe.base_model)
    for entry in [*document.get("models", ()), *document.get("route", ())]:
        entry["model"] = canonical(entry["model"])
    return document

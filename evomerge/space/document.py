"""Reads a search space from a name in search_spaces/, a path, or a mapping in the job.

The result is one complete mapping, so that a record can hold it.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.documents import load_text, parse_mapping
from evomerge.errors import JobError, RecipeError
from evomerge.job import shipped_folder
from evomerge.recipe import load_recipe

# Checks of single keys and values in the YAML of a space. Each error is one line with its mend.


_WIDEST = 1e9
"""The widest range; sums and products of values from wider ranges would not be finite."""


def check_range(low: float, high: float, place: str) -> None:
    """Raise JobError for a range that is empty or far too wide."""
    if low >= high:
        raise JobError(f"{place}.low: {low:g} is not below high ({high:g}); widen the range")
    if high - low > _WIDEST:
        raise JobError(f"{place}: from {low:g} to {high:g} is wider than {_WIDEST:g}; narrow it")


def nearest(name: object, known: Iterable[str]) -> str:
    """A mend for an unknown name: the closest known name, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def only(written: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    """Raise JobError for a key that is not among the known ones."""
    for key in written:
        if key not in known:
            raise JobError(f"{place}.{key}: unknown key; {nearest(key, known)}")


def one_of(value: object, choices: tuple[str, ...], place: str) -> str:
    """The value as one of the choices. Raises JobError."""
    if value not in choices:
        raise JobError(f"{place}: {value}: write {' or '.join(choices)}")
    return str(value)


def switch(value: object, place: str) -> bool:
    """The value as true or false. Raises JobError."""
    if not isinstance(value, bool):
        raise JobError(f"{place}: {value}: write true or false")
    return value


def number(value: object, place: str) -> float:
    """The value as a finite number. Raises JobError."""
    if isinstance(value, str):  # YAML 1.1 reads 1e-3, without a point, as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise JobError(f"{place}: {value}: give a number")
    return float(value)


# Which of a space's models a reference means: one local folder can be written in many ways.


def canonical(reference: str) -> str:
    """A local folder as its absolute path; anything else as it is."""
    return str(Path(reference).resolve()) if os.path.isdir(reference) else reference


def own_reference(reference: str, known: Sequence[str]) -> str:
    """The known reference of the same model; the reference itself where there is none."""
    if reference in known:
        return reference
    own = {canonical(name): name for name in known}
    return own.get(canonical(reference), reference)


def read_space(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """A space as one mapping, with the recipe of `start_from` written into it.

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

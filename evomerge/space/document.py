"""Reads a search space from a name in search_spaces/, a path, or a mapping in the job.

The result is one complete mapping, so that a record can hold it. The types of values that the YAML
of both kinds of space has are here too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AllowInfNan,
    BeforeValidator,
    Discriminator,
    Strict,
    Tag,
    ValidationInfo,
    field_validator,
)

from evomerge.documents import load_text, nearest, parse_mapping
from evomerge.errors import JobError, RecipeError
from evomerge.job import Section, shipped_folder
from evomerge.recipe import Recipe, load_recipe, read_recipe
from evomerge.space.base import Scale

# Values that the YAML of both kinds of space has.


def read_number(written: object) -> object:
    """A number that is written as text; anything else as it is."""
    with contextlib.suppress(ValueError):
        return float(written) if isinstance(written, str) else written
    return written


Number = Annotated[float, BeforeValidator(read_number), Strict(), AllowInfNan(False)]
"""A finite number; YAML 1.1 reads 1e-3, without a point, as text."""

SCALAR, NESTED = Tag("[scalar]"), Tag("[nested]")
"""The two forms of a value that may be a mapping or a list, or simply a word or a number."""


def word_or(shape: type | tuple[type, ...], *words: str, mend: str) -> Discriminator:
    """Takes one of the words as SCALAR, a filled `shape` as NESTED, and refuses the rest."""

    def choose(written: object) -> str | None:
        if isinstance(written, str):
            return SCALAR.tag if written in words else None
        return NESTED.tag if isinstance(written, shape) and written else None

    return Discriminator(choose, custom_error_type="shape", custom_error_message=mend)


_WIDEST = 1e9
"""The widest range; sums and products of values from wider ranges would not be finite."""


class Range(Section):
    """Values to search."""

    scale: Scale = "linear"
    low: Number
    high: Number

    @field_validator("low")
    @classmethod
    def _check_low(cls, low: float, info: ValidationInfo) -> float:
        if low <= 0.0 and info.data.get("scale") == "log":
            raise ValueError("has no logarithm; give a positive one, or no scale")
        return low

    @field_validator("high")
    @classmethod
    def _check_high(cls, high: float, info: ValidationInfo) -> float:
        low = info.data.get("low", high - 1.0)
        if low >= high:
            raise ValueError(f"not above low ({low:g}); widen the range")
        if high - low > _WIDEST:
            raise ValueError(f"more than {_WIDEST:g} above low ({low:g}); narrow the range")
        return high


def _read_start(written: object) -> Recipe:
    if not isinstance(written, Mapping):
        raise ValueError("give the path of a recipe")
    try:
        return read_recipe(yaml.safe_dump(dict(written)), where="the recipe")
    except RecipeError as error:
        raise ValueError(str(error)) from error


StartFrom = Annotated[Recipe, BeforeValidator(_read_start)] | None


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

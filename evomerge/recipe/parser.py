"""Reads recipes: our own documents and any mergekit YAML; errors are one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evomerge.documents import load_text, parse_mappings
from evomerge.errors import RecipeError
from evomerge.problem_words import problem_text, written_parts
from evomerge.recipe.recipe import Recipe

_OTHER_KINDS = {
    "experts": "belongs to mergekit-moe, which builds a mixture of experts; write a merge_method",
    "gate_mode": "belongs to mergekit-moe, which builds a mixture of experts; write a merge_method",
    "genome": "belongs to mergekit-evolve; write a job for `evomerge search`",
    "stages": "no such key; write each stage as a document of its own with a `name`, before this",
}
"""Keys of other mergekit documents, or of none, with their mends."""

_MOST_DOCUMENTS = 100
_MOST_MERGES = 1000
"""The most merges that a recipe may need; a stage counts each time a merge or stage uses it."""


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; see `read_recipe`."""
    return read_recipe(load_text(path, kind="a recipe", error=RecipeError), where=str(path))


def read_recipe(text: str, *, where: str) -> Recipe:
    """Parse a recipe or any mergekit YAML of the same form, of one document or several.

    Of several documents, all but one have a `name` that others use as a model. They become the
    `stages` of the document without a name; each stage comes after the stages that it uses. Unused
    stages are left out. where: names the file in messages. Raises RecipeError with the field and
    the mend.
    """
    expected = "merge_method and models"
    documents = parse_mappings(text, where=where, expected=expected, error=RecipeError)
    if len(documents) > _MOST_DOCUMENTS:
        raise RecipeError(
            f"{where}: {len(documents)} documents; a recipe has at most {_MOST_DOCUMENTS}"
        )
    if len(documents) == 1 and "name" not in documents[0]:
        return _recipe(documents[0], where)
    named: dict[str, Recipe] = {}
    finals: list[Recipe] = []
    for place, document in enumerate(documents, start=1):
        name = document.pop("name", None)
        recipe = _recipe(document, f"{where}, document {place}")
        if name is None:
            finals.append(recipe)
        elif not isinstance(name, str) or not name or "/" in name or name.startswith("."):
            raise RecipeError(f"{where}, document {place}: name: {name}: give a plain word")
        elif name in named:
            raise RecipeError(f"{where}: name: {name} is given twice; name each document once")
        else:
            named[name] = recipe
    if len(finals) != 1:
        counted = f"{len(finals)} of its documents are" if finals else "none of its documents is"
        raise RecipeError(
            f"{where}: {counted} without a `name`; leave it out of exactly one, the final merge"
        )
    return finals[0].model_copy(update={"stages": _in_order(finals[0], named, where)})


def _in_order(final: Recipe, named: Mapping[str, Recipe], where: str) -> dict[str, Recipe]:
    """The named merges that the final merge uses, each after those that it uses itself."""
    ordered: dict[str, Recipe] = {}
    merges: dict[str, int] = {}

    def add(recipe: Recipe, users: tuple[str, ...]) -> None:
        for name in recipe.named:
            if name in users:
                raise RecipeError(f"{where}: name: {name} is made of itself; break the circle")
            if name in named and name not in ordered:
                add(named[name], (*users, name))
                ordered[name] = named[name]
                merges[name] = 1 + sum(merges.get(used, 0) for used in named[name].named)
                if merges[name] > _MOST_MERGES:
                    raise RecipeError(
                        f"{where}: name: {name} needs more than {_MOST_MERGES:,} merges, with "
                        "the stages that its stages use; write fewer"
                    )

    add(final, ())
    return ordered


def _recipe(document: Mapping[str, Any], where: str) -> Recipe:
    for key, meaning in _OTHER_KINDS.items():
        if key in document:
            raise RecipeError(f"{where}: {key}: {meaning}")
    # A key without a value counts as missing, as in mergekit.
    fields = {key: value for key, value in document.items() if value is not None}
    fields = {**fields, **_dtypes(fields)}
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in written_parts(first))
        # A problem of the whole document names its field itself.
        message = ": ".join(part for part in (field, problem_text(first)) if part)
        raise RecipeError(f"{where}: {message}") from error


def _dtypes(document: Mapping[str, Any]) -> dict[str, Any]:
    """Arithmetic is always float32; `dtype` in other recipes means the storage dtype."""
    stored = document.get("out_dtype") or document.get("dtype")
    if isinstance(stored, str):
        stored = stored.removeprefix("torch.")
    return {"dtype": "float32", "out_dtype": stored}

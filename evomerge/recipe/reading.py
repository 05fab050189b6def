"""Reading recipes: our own documents and anyone's mergekit YAML, refused in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evomerge.documents import load_text, parse_mapping, problem_text, written_parts
from evomerge.errors import RecipeError
from evomerge.recipe.recipe import Recipe

_OTHER_KINDS = {
    "experts": "is of mergekit-moe, which builds a mixture of experts; write a merge_method",
    "gate_mode": "is of mergekit-moe, which builds a mixture of experts; write a merge_method",
    "genome": "is of mergekit-evolve; write a job for `evomerge search`",
    "name": "is of mergekit-multi; write each of its merges in a file of its own, without a name",
}
"""Keys that only other documents of mergekit have."""


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; see `read_recipe`."""
    return read_recipe(load_text(path, kind="a recipe", error=RecipeError), where=str(path))


def read_recipe(text: str, *, where: str) -> Recipe:
    """Parse a recipe or any mergekit YAML of the same form.

    `where` names the file in messages. Raises RecipeError with the field and the mend.
    """
    if _is_several(text):
        raise RecipeError(
            f"{where}: holds several documents, which mergekit-multi reads; "
            "write each merge in a file of its own"
        )
    expected = "merge_method and models"
    document = parse_mapping(text, where=where, expected=expected, error=RecipeError)
    for key, meaning in _OTHER_KINDS.items():
        if key in document:
            raise RecipeError(f"{where}: {key}: {meaning}")
    # A key without a value is a key not given, as in mergekit.
    given = {key: value for key, value in document.items() if value is not None}
    given = {**given, **_dtypes(given)}
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in written_parts(first["loc"]))
        # A problem of the whole document names its field itself.
        said = ": ".join(part for part in (field, problem_text(first)) if part)
        raise RecipeError(f"{where}: {said}") from error


def _is_several(text: str) -> bool:
    """Whether a second YAML document starts after the first."""
    lines = [line.rstrip() for line in text.splitlines()]
    starts = [place for place, line in enumerate(lines) if line == "---"]
    before = lines[: starts[0]] if starts else []
    written_before = any(line and not line.startswith(("#", "%")) for line in before)
    return len(starts) + written_before > 1


def _dtypes(document: Mapping[str, Any]) -> dict[str, Any]:
    """Arithmetic is float32 always; the `dtype` of other people's recipes is what they store."""
    stored = document.get("out_dtype") or document.get("dtype")
    if isinstance(stored, str):
        stored = stored.removeprefix("torch.")
    return {"dtype": "float32", "out_dtype": stored}

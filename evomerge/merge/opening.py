"""Opening every model that a recipe, or a merge that it is made of, names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from evomerge.errors import RecipeError
from evomerge.recipe import Recipe
from evomerge.sources import Source, open_source
from evomerge.vocabulary import vocabulary_models


def models_named(recipe: Recipe) -> tuple[str, ...]:
    """Every model with files of its own that counts in a merge, by reference.

    Those that it merges come first, then others whose tokens count. Raises RecipeError.
    """
    return tuple(
        dict.fromkeys(
            [
                *recipe.checkpoints,
                *(
                    name
                    for _, document in _documents(recipe)
                    for name in vocabulary_models(document)
                    if name not in recipe.stages
                ),
            ]
        )
    )


def open_checkpoints(
    recipe: Recipe, *, known: Mapping[str, Source] | None = None
) -> dict[str, Source]:
    """Every checkpoint and adapter that is merged, by reference, in the order of `checkpoints`.

    known: models that are open already. Adapters that name no model themselves are opened over the
    base of the merge that names them. Raises RecipeError, SourceError.
    """
    opened: dict[str, Source] = {}
    for path, document in _documents(recipe):
        for place, name in enumerate(document.references):
            _open(recipe, document, name, f"{path}models.{place}", opened, known or {})
    return opened


def open_models(recipe: Recipe) -> dict[str, Source]:
    """The models of `models_named`, in their order, and those whose tokenizer is taken.

    Raises RecipeError, SourceError.
    """
    opened = open_checkpoints(recipe)
    for path, document in _documents(recipe):
        for place, name in enumerate(vocabulary_models(document)):
            _open(recipe, document, name, f"{path}evomerge.vocabulary.{place}", opened, {})
    for path, document in _documents(recipe):
        field = "tokenizer_source" if document.tokenizer is None else "tokenizer.source"
        for name in document.named:
            _open(recipe, document, name, path + field, opened, {})
    return opened


def _documents(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """The stages and the merge itself, each after what messages put before its fields."""
    for name, stage in recipe.used_stages.items():
        yield f"{name}: ", stage
    yield "", recipe


def _open(
    recipe: Recipe,
    document: Recipe,
    name: str,
    where: str,
    opened: dict[str, Source],
    known: Mapping[str, Source],
) -> None:
    """Add a model to those opened, unless it is there or is a stage."""
    if name in opened or name in recipe.stages:
        return
    model, _, adapter = name.partition("+")
    if adapter and model in recipe.stages:
        raise RecipeError(
            f"{where}: {name}: {model} is a merge of this recipe, and adapters are opened over "
            "models with files; merge it into a folder first and name that"
        )
    base = opened.get(document.base_model) if document.base_model else None
    opened[name] = known[name] if name in known else open_source(name, where=where, base=base)

"""Opening every model that a recipe, or a merge that it is made of, names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from evomerge.errors import RecipeError
from evomerge.merge.merged_source import open_stage, open_stages
from evomerge.merge.settings.generation import end_tokens
from evomerge.merge.settings.shared import SharedSettings
from evomerge.recipe import Recipe, RecipeModel
from evomerge.sources import Source, open_source
from evomerge.vocabulary import (
    BLOCK_KEY,
    AlignedSource,
    Alignment,
    TokenizerReader,
    align,
    end_rows,
    tokenizer_folder,
    tokenizer_spec,
    vocabulary_models,
)


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


# One vocabulary for the models of a recipe and of the merges that it is made of.


def align_models(recipe: Recipe, sources: Mapping[str, Source]) -> Alignment:
    """The models of a recipe, its stages among them, over the vocabulary that it asks for.

    sources: opened models by reference, of `open_models`. Every stage may ask for the vocabulary of
    the recipe, made of the same models (`evomerge.vocabulary`), as searches write it; else the
    tokenizer of a stage must be that of the model that leads it. Raises RecipeError for a stage
    that asks for another, SourceError.
    """
    if _is_one_vocabulary(recipe):
        alignment = align(_over_all_models(recipe), sources)
        return replace(alignment, sources=open_stages(recipe, alignment.sources))
    opened = dict(sources)
    for name, stage in recipe.used_stages.items():
        asked = align(stage.model_copy(update={"chat_template": None}), opened)
        opened[name] = open_stage(name, stage, {**opened, **asked.sources})
        if not _keeps_its_tokenizer(recipe, stage, asked, opened[name]):
            raise RecipeError(
                f"{name}: asks for a tokenizer that is not that of its leading model; merge it "
                "into a folder first and name that"
            )
    alignment = align(recipe, opened)
    return replace(alignment, sources={**opened, **alignment.sources})


def shared_settings(
    recipe: Recipe, opened: Mapping[str, Source], alignment: Alignment
) -> SharedSettings:
    """What the merge has of the settings that its models disagree on. Raises SourceError.

    opened: the models of `open_models`, as their own files are. alignment: what became of them.
    """
    spec = tokenizer_spec(recipe)
    models = {name: opened[name] for name in recipe.checkpoints}
    reader, tokenizer = TokenizerReader(), None
    if any(tokenizer_spec(each) for each in (recipe, *recipe.used_stages.values())):
        tokenizer = alignment.tokenizer or reader.load(alignment.tokenizer_source)
    ends = end_rows(models, end_tokens, tokenizer=tokenizer, reader=reader)
    unite = spec is None or spec.source in ("base", "union")
    return SharedSettings(models, ends, unite=unite)


def _is_one_vocabulary(recipe: Recipe) -> bool:
    """Whether every merge of several asks for one tokenizer, made of the same listed models."""
    documents = [recipe, *recipe.used_stages.values()]
    asked = [(tokenizer_spec(each), each.evomerge.get(BLOCK_KEY)) for each in documents]
    spec, listed = asked[0]
    same = all(each == asked[0] for each in asked)
    return bool(recipe.stages) and spec is not None and listed is not None and same


def _over_all_models(recipe: Recipe) -> Recipe:
    """A merge of all the models that asks for the same vocabulary."""
    listed = [name for name in recipe.evomerge[BLOCK_KEY] if name not in recipe.stages]
    return Recipe(
        merge_method="linear",
        models=tuple(RecipeModel(model=name) for name in recipe.checkpoints),
        tokenizer=recipe.tokenizer,
        tokenizer_source=recipe.tokenizer_source,
        chat_template=recipe.chat_template,
        evomerge={BLOCK_KEY: listed},
    )


def _keeps_its_tokenizer(recipe: Recipe, stage: Recipe, asked: Alignment, opened: Source) -> bool:
    """Whether the tokenizer of a stage is what lies where its leading model does."""
    if stage.chat_template is not None and recipe.chat_template in (None, "auto"):
        return False
    giver = asked.tokenizer_source
    if tokenizer_spec(stage) is None:
        return True
    written = isinstance(giver, AlignedSource) and giver.tokenizer is not None
    return not written and tokenizer_folder(giver) == opened.folder

"""Opens every model that a recipe and its stages name."""

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
    """The references of all models with files that affect a merge.

    The merged models come first, then models that only add tokens. Raises RecipeError.
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
    """Open every checkpoint and adapter that is merged, in the order of `checkpoints`.

    known: models that are already open. An adapter that names no base model is opened over the base
    of the merge that lists it. Returns the sources by reference. Raises RecipeError, SourceError.
    """
    opened: dict[str, Source] = {}
    for path, document in _documents(recipe):
        for place, name in enumerate(document.references):
            _open(recipe, document, name, f"{path}models.{place}", opened, known or {})
    return opened


def open_models(recipe: Recipe) -> dict[str, Source]:
    """Open the models of `models_named`, in order, and models that only give a tokenizer.

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
    """The stages and the merge itself: (prefix of its fields in messages, recipe)."""
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
    """Open a model into `opened`, unless it is there already or is a stage."""
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


# One vocabulary for the models of a recipe and of its stages.


def align_models(recipe: Recipe, sources: Mapping[str, Source]) -> Alignment:
    """Give the models of a recipe and its stages the vocabulary that the recipe sets.

    sources: opened models by reference, from `open_models`. All stages may set the recipe's own
    vocabulary, made of the same models (`evomerge.vocabulary`), as searches write it. Otherwise a
    stage must keep the tokenizer of its leading model. Raises RecipeError for a stage with another
    tokenizer, SourceError.
    """
    if _is_one_vocabulary(recipe):
        alignment = align(_over_all_models(recipe), sources)
        return replace(alignment, sources=open_stages(recipe, alignment.sources))
    opened = dict(sources)
    for name, stage in recipe.used_stages.items():
        stage_alignment = align(stage.model_copy(update={"chat_template": None}), opened)
        opened[name] = open_stage(name, stage, {**opened, **stage_alignment.sources})
        if not _keeps_its_tokenizer(recipe, stage, stage_alignment, opened[name]):
            raise RecipeError(
                f"{name}: its tokenizer is not that of its leading model; merge it "
                "into a folder first and name that"
            )
    alignment = align(recipe, opened)
    return replace(alignment, sources={**opened, **alignment.sources})


def shared_settings(
    recipe: Recipe, opened: Mapping[str, Source], alignment: Alignment
) -> SharedSettings:
    """Settle the settings that the models of a merge disagree on. Raises SourceError.

    opened: the models from `open_models`, as in their files. alignment: the same models aligned.
    """
    spec = tokenizer_spec(recipe)
    models = {name: opened[name] for name in recipe.checkpoints}
    reader, tokenizer = TokenizerReader(), None
    if any(tokenizer_spec(document) for document in (recipe, *recipe.used_stages.values())):
        tokenizer = alignment.tokenizer or reader.load(alignment.tokenizer_source)
    ends = end_rows(models, end_tokens, tokenizer=tokenizer, reader=reader)
    unite = spec is None or spec.source in ("base", "union")
    return SharedSettings(models, ends, unite=unite)


def _is_one_vocabulary(recipe: Recipe) -> bool:
    """Whether a recipe has stages and they all set one tokenizer, made of the same models."""
    documents = [recipe, *recipe.used_stages.values()]
    vocabularies = [(tokenizer_spec(each), each.evomerge.get(BLOCK_KEY)) for each in documents]
    spec, listed = vocabularies[0]
    same = all(each == vocabularies[0] for each in vocabularies)
    return bool(recipe.stages) and spec is not None and listed is not None and same


def _over_all_models(recipe: Recipe) -> Recipe:
    """A merge of all the models with the same vocabulary settings."""
    listed = [name for name in recipe.evomerge[BLOCK_KEY] if name not in recipe.stages]
    return Recipe(
        merge_method="linear",
        models=tuple(RecipeModel(model=name) for name in recipe.checkpoints),
        tokenizer=recipe.tokenizer,
        tokenizer_source=recipe.tokenizer_source,
        chat_template=recipe.chat_template,
        evomerge={BLOCK_KEY: listed},
    )


def _keeps_its_tokenizer(
    recipe: Recipe, stage: Recipe, alignment: Alignment, opened: Source
) -> bool:
    """Whether a stage's tokenizer is the one in the folder of its leading model."""
    if stage.chat_template is not None and recipe.chat_template in (None, "auto"):
        return False
    tokenizer_source = alignment.tokenizer_source
    if tokenizer_spec(stage) is None:
        return True
    written = isinstance(tokenizer_source, AlignedSource) and tokenizer_source.tokenizer is not None
    return not written and tokenizer_folder(tokenizer_source) == opened.folder

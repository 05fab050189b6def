"""One vocabulary for the models of a recipe and of the merges that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evomerge.errors import RecipeError
from evomerge.merge.generation_settings import end_tokens
from evomerge.merge.merged_source import open_stage, open_stages
from evomerge.merge.shared_settings import SharedSettings
from evomerge.recipe import Recipe, RecipeModel
from evomerge.sources import Source
from evomerge.vocabulary import (
    BLOCK_KEY,
    AlignedSource,
    Alignment,
    TokenizerReader,
    align,
    end_rows,
    tokenizer_folder,
    tokenizer_spec,
)


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

"""Execution of a recipe file: the same recipe and sources always give the same bytes.

If the recipe has hashes of its sources, as every exported recipe has, they are checked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.errors import RecipeError
from evomerge.export.card import Story
from evomerge.export.delivery import export_checkpoint
from evomerge.export.folder import check_free
from evomerge.export.origins import Origin, public_names, trace
from evomerge.export.shards import SHARD_BYTES, Weights
from evomerge.merge import MergeEngine, align_models, open_models, open_stages, shared_settings
from evomerge.recipe import Recipe
from evomerge.sources import Source, open_source

_MEND = "put that file back, or take `sources` out of the recipe's `evomerge:` block to merge it"


def _say_nothing(note: str) -> None:
    return None


def merge_recipe(
    recipe: Recipe,
    out: Path,
    *,
    as_adapter: bool = False,
    rank: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    say: Callable[[str], object] = _say_nothing,
) -> Weights:
    """Execute a recipe into the new folder `out`, with the tokenizer that the recipe names.

    If the recipe has several documents, the stages are merged when they are read and never written.
    If it names no tokenizer, that of the base (or of the first model) is used. The weights are
    those of the export that wrote the recipe, to the byte. as_adapter: write one LoRA adapter over
    the base instead, of at most `rank`. say: gets a line for each setting in which the models
    differ. Raises RecipeError if the recipe cannot be executed or a source is not
    the one it was made from, SourceError, RunError, StorageError.
    """
    check_free(out)
    opened = open_models(recipe)
    # Planned only to refuse a bad recipe before the sources are hashed.
    MergeEngine(open_stages(recipe, opened)).plan(recipe)
    alignment = align_models(recipe, opened)
    settings = shared_settings(recipe, opened, alignment)
    recipe = settings.complete(recipe, alignment.sources)
    sources = open_stages(recipe, alignment.sources)
    adapter = None
    if as_adapter:
        from evomerge.export.adapter_plan import plan_adapter

        adapter = plan_adapter(recipe, sources, base=_adapter_base(recipe), rank=rank)
    models = tuple(opened.values()) if adapter is None else adapter.traced(opened.values())
    names = public_names(models)
    origins = trace(models, names)
    _check_sources(recipe.evomerge.get("sources"), origins)
    notes = () if recipe.alone else settings.notes(recipe)
    for note in notes:
        say(note)
    story = Story(title=_title(recipe, names), opening=_OPENING, names=names, notes=notes)
    if adapter is not None:
        from evomerge.export.adapter_delivery import export_adapter

        return export_adapter(
            adapter, alignment.tokenizer_source, out, origins=origins, story=story
        )
    return export_checkpoint(
        recipe,
        alignment.sources,
        alignment.tokenizer_source,
        out,
        origins=origins,
        story=story,
        shard_bytes=shard_bytes,
    )


_OPENING = (
    "Made from a recipe: nothing was scored when this folder was written. Scores that the recipe "
    "carries under `evomerge:` are those of the search it came from."
)


def _adapter_base(recipe: Recipe) -> Source | None:
    """The model that an adapter is loaded over by the recipe's block; it may name no base."""
    block = recipe.evomerge.get("adapter")
    base = block.get("base") if isinstance(block, Mapping) else None
    if base is None or recipe.base_model is not None:
        return None
    return open_source(str(base), where="evomerge.adapter.base")


def _title(recipe: Recipe, names: Mapping[str, str]) -> str:
    job = recipe.evomerge.get("job")
    bases = {each.base_model for each in (recipe, *recipe.used_stages.values())}
    experts = [name for name in recipe.checkpoints if name not in bases]
    return str(job) if job else " + ".join(names[name] for name in experts or recipe.checkpoints)


def _check_sources(stated: Any, origins: Sequence[Origin]) -> None:
    """Compare the sources with the hashes in the recipe.

    A source that the recipe's block does not name is compared with the entry at its position. So a
    recipe is checked even if its paths were changed to those of another machine. Files that the
    recipe does not list are not compared.
    """
    if stated is None:
        return
    entries = _entries(stated)
    named = dict(entries)
    for place, origin in enumerate(origins):
        in_place = entries[place][1] if place < len(entries) else {}
        for file, digest in named.get(origin.reference, in_place).items():
            found = origin.files.get(file)
            if found is None:
                raise RecipeError(
                    f"{origin.reference}: {file} is missing, but the recipe was made from it; "
                    f"{_MEND}"
                )
            if found.sha256 != digest:
                raise RecipeError(
                    f"{origin.reference}: {file} is not the one that the recipe was made from "
                    f"(sha256 {found.sha256[:12]}…, not {str(digest)[:12]}…); {_MEND}"
                )


def _entries(stated: Any) -> list[tuple[str, Mapping[str, str]]]:
    """(model, file -> sha256) as the block lists them; it may be written by hand."""
    if not isinstance(stated, Iterable) or isinstance(stated, str | Mapping):
        stated = [None]
    entries = []
    for place, entry in enumerate(stated):
        digests = entry.get("sha256") if isinstance(entry, Mapping) else None
        if not isinstance(digests, Mapping) or "model" not in entry:
            raise RecipeError(
                f"evomerge.sources.{place}: expected a mapping with model and sha256; mend it, or "
                "take `sources` out of the recipe's `evomerge:` block"
            )
        entries.append((str(entry["model"]), digests))
    return entries

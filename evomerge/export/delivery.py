"""A merge as a folder with recipe, model card and manifest, written completely or not at all.

OUT/
├── model.safetensors        or shards and their index
├── config.json              with generation_config.json and the tokenizer's files
├── recipe.yaml              what `evomerge merge` and mergekit execute
├── README.md                the model card
├── ...                      the files beside the leading model's weights
└── manifest.json            sha256 of every file and of every source
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evomerge.export.card import Story, write_card
from evomerge.export.checkpoint import beside_weights, weights_bytes, write_checkpoint
from evomerge.export.folder import inside, whole_folder
from evomerge.export.manifest import RECIPE, versions_here, write_manifest
from evomerge.export.origins import Origin
from evomerge.export.shards import SHARD_BYTES, Weights
from evomerge.export.use import use_of
from evomerge.merge import check_recipe, models_named
from evomerge.recipe import Recipe
from evomerge.route import published
from evomerge.sources import Source


def export_checkpoint(
    recipe: Recipe,
    sources: Mapping[str, Source],
    tokenizer_source: Source,
    out: Path,
    *,
    origins: Sequence[Origin],
    story: Story,
    shard_bytes: int = SHARD_BYTES,
    trust_remote_code: bool = False,
) -> Weights:
    """Execute a recipe into the new folder `out`: checkpoint, recipe, card and manifest.

    sources: opened models and stages, by the references of the recipe and of its stages (see
    `open_stages`). origins: of the models with files, in the order of `models_named`; the
    tokenizer's model is last if it is not one of them. The same arguments give the same bytes.
    Raises RecipeError, SourceError, RunError (`out` exists), StorageError (disk full). A failed
    attempt leaves nothing behind.
    """
    structures = {name: source.structure for name, source in sources.items()}
    check_recipe(recipe, structures)
    stated = published(recipe, structures)
    stated = stated.with_block(sources=stated_sources(origins), versions=versions_here())
    text = stated.to_yaml()
    beside = beside_weights(recipe, sources, tokenizer_source, trust_remote_code=trust_remote_code)
    use = use_of(beside.config, beside.files)
    card = write_card(stated, origins, story=story, use=use, with_code=beside.code)
    with whole_folder(out, needed_bytes=weights_bytes(recipe, sources)) as folder:
        weights = write_checkpoint(
            recipe,
            sources,
            tokenizer_source,
            folder,
            shard_bytes=shard_bytes,
            trust_remote_code=trust_remote_code,
        )
        inside(folder, RECIPE).write_text(text, encoding="utf-8")
        inside(folder, "README.md").write_text(card, encoding="utf-8")
        write_manifest(
            folder, origins, merges=merges_of(recipe, story.names), sha256=weights.sha256
        )
    return replace(weights, notes=(*weights.notes, *beside.notes))


def models_of(
    recipe: Recipe, sources: Mapping[str, Source], tokenizer_source: Source
) -> tuple[Source, ...]:
    """The sources that a merge is made of, the tokenizer's among them; each once."""
    used = {reference: sources[reference] for reference in models_named(recipe)}
    used.setdefault(tokenizer_source.reference, tokenizer_source)
    return tuple(used.values())


def merges_of(recipe: Recipe, names: Mapping[str, str]) -> list[dict[str, object]]:
    """The manifest's entries for the merges of a recipe: its stages, then the recipe itself."""
    documents = [*recipe.used_stages.items(), (None, recipe)]
    return [
        {
            **({} if name is None else {"name": name}),
            "merge_method": document.merge_method,
            "models": [names.get(each, each) for each in document.references],
        }
        for name, document in documents
    ]


def stated_sources(origins: Sequence[Origin]) -> list[dict[str, object]]:
    """The sources for the recipe's `evomerge:` block; `merge_recipe` checks them."""
    return [
        {
            "model": origin.reference,
            "revision": origin.revision,
            "sha256": {name: facts.sha256 for name, facts in sorted(origin.files.items())},
        }
        for origin in origins
    ]

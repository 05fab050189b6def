"""A merge as a folder with one PEFT LoRA adapter, written completely or not at all.

OUT/
├── adapter_model.safetensors  float32
├── adapter_config.json        with the tokenizer's files
├── recipe.yaml                what `evomerge merge` and mergekit execute
├── README.md                  the model card
└── manifest.json              sha256 of every file and of every source, and the adapter's error
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evomerge.export.adapter import write_adapter
from evomerge.export.adapter_plan import AdapterPlan
from evomerge.export.card import Story, write_card
from evomerge.export.checkpoint import check_tokenizer, copy_tokenizer
from evomerge.export.delivery import merges_of, stated_sources
from evomerge.export.folder import inside, whole_folder
from evomerge.export.manifest import RECIPE, versions_here, write_manifest
from evomerge.export.origins import Origin, public_names
from evomerge.export.shards import Weights
from evomerge.export.use import use_of
from evomerge.merge import changed_generation
from evomerge.route import published
from evomerge.sources import Source


def export_adapter(
    plan: AdapterPlan,
    tokenizer_source: Source,
    out: Path,
    *,
    origins: Sequence[Origin],
    story: Story,
) -> Weights:
    """Write a planned adapter into the new folder `out`, with recipe, card and manifest.

    origins: as in `export_checkpoint`. The same arguments give the same bytes. Raises RecipeError,
    SourceError, MergeError, RunError (`out` exists), StorageError (disk full). A failed attempt
    leaves nothing behind.
    """
    recipe, base = plan.recipe, plan.base
    structures = {name: source.structure for name, source in plan.sources.items()}
    stated = published(recipe, structures)
    stated = stated.with_block(
        sources=stated_sources(origins),
        versions=versions_here(),
        adapter={"base": base.reference},
    )
    name = story.names.get(base.reference, public_names([base])[base.reference])
    use = use_of(base.config, ())
    check_tokenizer(tokenizer_source)
    with whole_folder(out) as folder:
        weights = write_adapter(plan, folder, base=name, loader=use.loader)
        assert weights.adapter is not None
        card = write_card(stated, origins, story=story, use=use, adapter=weights.adapter)
        copy_tokenizer(tokenizer_source, folder)
        inside(folder, RECIPE).write_text(stated.to_yaml(), encoding="utf-8")
        inside(folder, "README.md").write_text(card, encoding="utf-8")
        write_manifest(
            folder,
            origins,
            merges=merges_of(recipe, story.names),
            adapter=weights.adapter,
            sha256=weights.sha256,
        )
    return replace(weights, notes=tuple(_notes(plan)))


def _notes(plan: AdapterPlan) -> Sequence[str]:
    settings = ", ".join(
        f"{key}: {value}" for key, value in changed_generation(plan.recipe).items()
    )
    if not settings:
        return ()
    return (
        f"an adapter has no generation settings; give {settings} when you generate with "
        f"{plan.base.reference} and it",
    )

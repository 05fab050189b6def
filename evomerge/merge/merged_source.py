"""A merge as a source of further merges: each tensor is merged when it is read.

Its tensors are byte for byte those of the checkpoint that the recipe would write.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from evomerge.errors import RecipeError
from evomerge.merge.engine import MergeEngine, merged_dtype
from evomerge.merge.methods.registry import METHODS
from evomerge.merge.plan.plan import Plan
from evomerge.merge.settings.config import merged_config
from evomerge.merge.tensor_cache import TensorCache
from evomerge.recipe import DType, Recipe
from evomerge.sources import ITEM_BYTES, Source, Structure, find_stacks
from evomerge.vocabulary import AlignedSource, TokenSettings, settings_of, tokenizer_folder

if TYPE_CHECKING:
    import torch


class MergedSource:
    """The model that a recipe makes of opened sources; a Source without files of its own.

    lead: the source that gives its configuration and its tokenizer.
    """

    revision: str | None = None
    files: Mapping[str, Path] = {}

    def __init__(self, name: str, recipe: Recipe, sources: Mapping[str, Source]) -> None:
        """name: how other recipes name it. sources: by reference. Raises RecipeError."""
        self.reference = name
        self._recipe = recipe
        # Each tensor is merged only once or twice, so a cache would not help.
        self._engine = MergeEngine(sources, cache=TensorCache(limit_bytes=0))
        plan = self._engine.plan(recipe)
        self._tensors = {tensor.name: tensor for tensor in plan.tensors}
        self._sources = dict(sources)
        self._last: tuple[str, torch.Tensor] | None = None
        self.lead = sources[plan.lead]
        self.folder = tokenizer_folder(self.lead) or self.lead.folder
        self.config: Mapping[str, Any] = merged_config(recipe, plan, sources)
        self.structure = _structure(name, recipe, plan, self.config, sources)

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor of `structure`, in the dtype of the result; never to be written to.

        The last tensor is kept, because a method may read it several times.
        """
        if self._last is None or self._last[0] != name:
            self._last = None  # never hold two at once
            self._last = name, self._engine.merge_tensor(self._recipe, self._tensors[name])
        return self._last[1]

    def as_stored(self, name: str) -> bool:
        """Whether all members of a tensor have the same rows as in their files."""
        return all(
            self._sources[member.reference].as_stored(member.tensor)
            for member in self._tensors[name].members
        )

    def prefetch(self, name: str) -> None:
        """Ask the system to read the members of a tensor ahead; returns at once."""
        self._engine.prefetch([self._tensors[name]])

    def sha256(self) -> Mapping[str, str]:
        """Empty: a merge has no files; its recipe and its sources identify it."""
        return {}


def open_stages(recipe: Recipe, sources: Mapping[str, Source]) -> dict[str, Source]:
    """Open every stage of a recipe, each over the sources and the stages before it.

    sources: opened models by reference, with one vocabulary. Returns the sources and the stages by
    name; a stage replaces a model of the same name. Raises RecipeError that names the stage.
    """
    opened = dict(sources)
    for name, stage in recipe.used_stages.items():
        opened[name] = open_stage(name, stage, opened)
    _refuse_statistics(recipe, opened)
    return opened


def open_stage(name: str, stage: Recipe, opened: Mapping[str, Source]) -> Source:
    """Open one stage over opened models and stages. Raises RecipeError that names it."""
    known = {reference: opened[reference] for reference in stage.references if reference in opened}
    try:
        _refuse_statistics(stage, known)
        merged = MergedSource(name, stage, known)
    except RecipeError as error:
        raise RecipeError(f"{name}: {error}") from error
    # Where the lead's token settings differ from its files, the stage gets the same settings.
    settings = settings_of(merged.lead)
    unchanged = settings == TokenSettings()
    return merged if unchanged else AlignedSource(merged, tensors={}, settings=settings)


def _refuse_statistics(recipe: Recipe, opened: Mapping[str, Source]) -> None:
    method = METHODS.get(recipe.merge_method)
    if method is None or method.statistics is None:
        return
    known = (name for name in recipe.references if name in opened)
    stage = next((name for name in known if not opened[name].files), None)
    if stage is not None:
        raise RecipeError(
            f"merge_method: {method.name} needs statistics of {stage}, which is a merge of this "
            "recipe and has no files to calibrate; merge it into a folder first and name that"
        )


def _structure(
    name: str, recipe: Recipe, plan: Plan, config: Mapping[str, Any], sources: Mapping[str, Source]
) -> Structure:
    """The structure of the checkpoint that the merge would write."""
    structures = {reference: source.structure for reference, source in sources.items()}
    dtypes = {tensor.name: merged_dtype(tensor, recipe, structures) for tensor in plan.tensors}
    shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
    sizes = {
        tensor_name: math.prod(shapes[tensor_name]) * ITEM_BYTES[dtypes[tensor_name]]
        for tensor_name in shapes
    }
    bytes_of: dict[str, int] = defaultdict(int)
    for tensor_name, size_bytes in sizes.items():
        bytes_of[dtypes[tensor_name]] += size_bytes
    storage_dtype = max(bytes_of, key=lambda dtype: bytes_of[dtype])
    assert storage_dtype in get_args(DType), storage_dtype
    lead = structures[plan.lead]
    return Structure(
        architecture=lead.architecture,
        shapes=shapes,
        dtype=cast(DType, storage_dtype),
        tied=lead.tied,
        stacks=find_stacks(config, shapes, sizes, name),
        dtypes=dtypes,
        ignored=lead.ignored & shapes.keys(),
        parameters={
            tensor_name: own
            for tensor_name, own in lead.parameters.items()
            if tensor_name in shapes
        },
    )

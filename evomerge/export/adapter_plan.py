"""The plan of an adapter: what of each tensor of a merge it must hold, before a tensor is read.

The merged model minus the plain checkpoint that the adapter is loaded over is a sum of the sources'
own low-rank changes where the method adds whole models, the numbers they count with sum to 1, and
every model is that checkpoint or a LoRA adapter over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evomerge.deferred import torch
from evomerge.errors import RecipeError
from evomerge.export.peft_modules import PeftModules, Place
from evomerge.merge import MergedSource, MergeEngine, Plan, TensorCache, TensorPlan, merged_config
from evomerge.recipe import Recipe
from evomerge.sources import Adapter, Change, Source
from evomerge.vocabulary import AlignedSource

_SMALLEST_REST = 1e-9
"""Largest share of the base that may be left over by rounding of the weights."""

_CHECKPOINT = "export a checkpoint, without --as-adapter"

_UNCARRIED = ("dtype", "torch_dtype", "transformers_version", "auto_map")
"""Keys of a configuration that may differ without a difference in what the model computes."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tensor of the merge. stored: its name in the base.

    terms: (c, change) of the sources, whose sum is the merged tensor minus the base's; None where
    no such sum is known.
    """

    tensor: TensorPlan
    stored: str
    place: Place
    terms: tuple[tuple[float, Change], ...] | None

    @property
    def factored(self) -> bool:
        """Whether the terms are products of factors alone."""
        return self.terms is not None and all(
            change.replacement is None for _, change in self.terms
        )


@dataclass(frozen=True, kw_only=True)
class AdapterPlan:
    """How a merge is written as an adapter. base: what it is loaded over. rank: the largest."""

    recipe: Recipe
    merge: Plan
    engine: MergeEngine
    sources: Mapping[str, Source]
    base: Source
    rank: int | None
    modules: PeftModules
    rows: tuple[Row, ...]

    def traced(self, models: Iterable[Source]) -> tuple[Source, ...]:
        """The models of the merge, and the base if none of them holds its files."""
        models = tuple(models)
        held = any(_change_over(self.base, model, "") is not _OTHER for model in models)
        return models if held else (*models, self.base)


def plan_adapter(
    recipe: Recipe,
    sources: Mapping[str, Source],
    *,
    base: Source | None = None,
    rank: int | None = None,
    code: Path | None = None,
) -> AdapterPlan:
    """Plan a recipe as one adapter.

    sources: by reference, with stages opened. base: used if the recipe names none. rank: None for
    the sources' factors side by side. code: a folder whose modelling code may run. Raises
    RecipeError, in one line, for a merge that no adapter can hold.
    """
    engine = MergeEngine(sources, cache=TensorCache(limit_bytes=0))
    root = _root(recipe, sources, base)
    merge = engine.plan(recipe)
    _refuse_moved_layers(recipe, merge, root)
    _refuse_other_settings(merged_config(recipe, merge, sources), root)
    modules = PeftModules(root.config, code=code)
    rows = tuple(_rows(recipe, merge, engine, sources, root, modules, exact=rank is None))
    _refuse_large(rank, rows)
    return AdapterPlan(
        recipe=recipe,
        merge=merge,
        engine=engine,
        sources=sources,
        base=root,
        rank=rank,
        modules=modules,
        rows=rows,
    )


def _root(recipe: Recipe, sources: Mapping[str, Source], base: Source | None) -> Source:
    """The plain checkpoint that the adapter is loaded over."""
    if recipe.base_model is not None:
        base = sources[recipe.base_model]
    if base is None:
        base = next(
            (each for name in recipe.references if _is_adapter(each := sources[name])), None
        )
    if base is None:
        raise RecipeError(
            "base_model: the recipe names none, and an adapter is loaded over a base; name it "
            "there or in the recipe's block, as `evomerge: {adapter: {base: MODEL}}`"
        )
    own = _own(base)
    own = own.base if isinstance(own, Adapter) else own
    if isinstance(own, MergedSource):
        raise RecipeError(
            f"base_model: {base.reference} is a merge of this recipe, and an adapter is loaded "
            "over a model with files; merge it into a folder first and name that"
        )
    return own


def _own(source: Source) -> Source:
    return _own(source.own) if isinstance(source, AlignedSource) else source


def _is_adapter(source: Source) -> bool:
    return isinstance(_own(source), Adapter)


def _refuse_moved_layers(recipe: Recipe, merge: Plan, root: Source) -> None:
    moved = recipe.route is not None or any(
        [layer.number for layer in layers] != list(range(root.structure.depth))
        for layers in merge.layers.values()
    )
    if moved:
        raise RecipeError(
            "--as-adapter: the layers of this merge are not those of its base in their order, and "
            f"an adapter keeps each in its place; {_CHECKPOINT}"
        )


def _refuse_other_settings(config: Mapping[str, object], root: Source) -> None:
    keys = sorted({*config, *root.config} - {*_UNCARRIED})
    for key in keys:
        if key.endswith("_token_id"):
            continue  # where answers end is a setting of generation, which the user can give
        if config.get(key) != root.config.get(key):
            raise RecipeError(
                f"--as-adapter: {key} of the merge is not that of {root.reference}, and an adapter "
                f"has no configuration of the model; {_CHECKPOINT}"
            )


def _rows(
    recipe: Recipe,
    merge: Plan,
    engine: MergeEngine,
    sources: Mapping[str, Source],
    root: Source,
    modules: PeftModules,
    *,
    exact: bool,
) -> Iterator[Row]:
    skipped = root.structure.ignored | root.structure.repeated
    for tensor in merge.tensors:
        stored = _stored_name(tensor, sources, root)
        if stored in skipped:
            continue
        _refuse_other_rows(tensor, stored, sources, root)
        found = _terms(recipe, tensor, stored, engine, sources, root)
        place = modules.place(stored)
        terms = None if isinstance(found, str) else found
        if terms is None and exact:
            raise RecipeError(
                f"--as-adapter: {found}, so the merge is no sum of LoRA adapters; give the rank "
                "of the nearest adapter, such as --rank 16 (its error is printed), or "
                f"{_CHECKPOINT}"
            )
        if terms and place.kind is None and any(count for count, _ in terms):
            raise RecipeError(not_held(stored, place))
        yield Row(tensor=tensor, stored=stored, place=place, terms=terms)


def not_held(stored: str, place: Place) -> str:
    """The message for a tensor that changes and that no adapter can hold."""
    return f"--as-adapter: {stored} changes, and {place.problem}; {_CHECKPOINT}"


def _stored_name(tensor: TensorPlan, sources: Mapping[str, Source], root: Source) -> str:
    """The name of a merged tensor in the base."""
    names = [
        member.tensor
        for member in tensor.members
        if _change_over(root, sources[member.reference], member.tensor) is not _OTHER
    ]
    name = next(iter(names), tensor.name)
    if name not in root.structure.shapes:
        raise RecipeError(
            f"--as-adapter: the merge has {tensor.name}, which {root.reference} lacks; "
            f"{_CHECKPOINT}"
        )
    return name


def _refuse_other_rows(
    tensor: TensorPlan, stored: str, sources: Mapping[str, Source], root: Source
) -> None:
    same = tensor.shape == root.structure.shapes[stored] and all(
        sources[member.reference].as_stored(member.tensor) for member in tensor.members
    )
    if not same:
        raise RecipeError(
            f"--as-adapter: {tensor.name} has other rows than in {root.reference} (the merge has "
            f"another vocabulary), and an adapter keeps the base's; {_CHECKPOINT}"
        )


_OTHER = object()
"""A model that is neither the base nor an adapter over it."""


def _change_over(root: Source, source: Source, name: str) -> object:
    """The change of a tensor of the base in a model: None for none; _OTHER if it is no relative."""
    own = _own(source)
    if isinstance(own, Adapter) and _same(own.base, root):
        return own.change(name)
    return None if _same(own, root) else _OTHER


def _same(source: Source, root: Source) -> bool:
    if isinstance(source, Adapter | MergedSource | AlignedSource):
        return False
    return source is root or source.folder.resolve() == root.folder.resolve()


def _terms(
    recipe: Recipe,
    tensor: TensorPlan,
    stored: str,
    engine: MergeEngine,
    sources: Mapping[str, Source],
    root: Source,
) -> tuple[tuple[float, Change], ...] | str:
    """The terms of a row, or in words why there are none."""
    changes: list[object] = []
    for member in tensor.members:
        change = _change_over(root, sources[member.reference], member.tensor)
        if change is _OTHER:
            return f"{member.reference} is no adapter over {root.reference}"
        changes.append(change)
    if not getattr(torch, root.structure.dtypes[stored]).is_floating_point:
        return ()
    counts = engine.coefficients(recipe, tensor)
    if counts is None:
        return f"{tensor.method.name} with these parameters changes the sources' task vectors"
    rest = 1.0 - sum(counts)
    if abs(rest) > _SMALLEST_REST * (1.0 + sum(map(abs, counts))):
        return f"the weights in effect sum to {sum(counts):g} in {tensor.name}, not to 1"
    terms = []
    for member, count, change in zip(tensor.members, counts, changes, strict=True):
        if not isinstance(change, Change):
            continue
        if change.magnitude is not None and count != 0.0:
            return f"{member.reference} is a DoRA adapter, which scales outputs of {stored} too"
        terms.append((count, change))
    return tuple(terms)


def _refuse_large(rank: int | None, rows: tuple[Row, ...]) -> None:
    sides = [min(row.tensor.shape) for row in rows if row.place.low_rank]
    largest = max(sides, default=0)
    if rank is not None and rank > largest:
        raise RecipeError(
            f"--rank: {rank} is more than {largest}, the full rank of the largest matrix; give a "
            "smaller one"
        )

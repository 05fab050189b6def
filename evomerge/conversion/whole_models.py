"""Merges of slices as merges of whole models, and passthrough merges as routes."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.errors import JobError
from evomerge.recipe import Condition, Recipe, RecipeModel, Setting, Slice, resolve


def as_whole_models(recipe: Recipe, depth: int, notes: list[str], *, where: str) -> Recipe:
    """The same merge over whole models, if its slices leave every layer where it is.

    depth: layers of the models. Raises JobError for slices that move, drop or repeat layers.
    """
    if recipe.slices is None:
        return recipe
    slices = recipe.slices
    models = [source.model for source in slices[0].sources]
    base = recipe.base_model or slices[0].base_model
    at = 0
    for place, piece in enumerate(slices):
        same = [source.model for source in piece.sources] == models
        in_place = all(source.layer_range == (at, at + piece.count) for source in piece.sources)
        if not same or not in_place or (piece.base_model or base) != base:
            raise JobError(
                f"{where}: slices.{place}: a search merges the same layers of the same models "
                "everywhere; for other orders of layers search routes (docs/routes.md)"
            )
        at += piece.count
    if at != depth:
        raise JobError(f"{where}: slices: take {at} of the {depth} layers; take all of them")
    entries = []
    for number, model in enumerate(models):
        scopes = [[piece.sources[number].parameters, piece.parameters] for piece in slices]
        names = dict.fromkeys(name for scope in scopes for level in scope for name in level)
        settings = {}
        for name in names:
            parts = [
                next((level[name] for level in scope if name in level), None) for scope in scopes
            ]
            settings[name] = _joined(parts, slices, f"{where}: {name} of {model}")
            if parts[0] != parts[-1]:
                notes.append(
                    f"slices: {name} of {model}: the final norm and the head start with the value "
                    "of the first slice, as the embeddings do; in the file with that of the last"
                )
        own = {name: setting for name, setting in settings.items() if not _shared(name, scopes)}
        entries.append(RecipeModel(model=model, parameters=own))
    shared = _recipe_settings(slices, where)
    return recipe.model_copy(
        update={
            "slices": None,
            "base_model": base,
            "models": tuple(entries),
            "parameters": {**recipe.parameters, **shared},
        }
    )


def _shared(name: str, scopes: Sequence[Sequence[object]]) -> bool:
    """Whether only slices give a parameter, and no source: then it is one of the recipe."""
    return not any(name in level for scope in scopes for level in scope[:1])  # type: ignore[operator]


def _recipe_settings(slices: Sequence[Slice], where: str) -> dict[str, Setting]:
    names = dict.fromkeys(name for piece in slices for name in piece.parameters)
    named = {name for piece in slices for source in piece.sources for name in source.parameters}
    return {
        name: _joined([piece.parameters.get(name) for piece in slices], slices, f"{where}: {name}")
        for name in names
        if name not in named
    }


def _joined(parts: Sequence[Setting | None], slices: Sequence[Slice], what: str) -> Setting:
    """One setting over all layers: the value of each layer, for each filter."""
    if all(part == parts[0] for part in parts) and not isinstance(parts[0], tuple):
        assert parts[0] is not None
        return parts[0]
    filters = [_filters(part) for part in parts]
    if any(each != filters[0] for each in filters):
        raise JobError(f"{what}: has other filters in another slice; give all slices the same")
    if filters[0] is None:
        return _gradient(parts, slices, what)
    conditions = []
    for number, wanted in enumerate(filters[0]):
        values: list[Setting | None] = []
        for part in parts:
            assert isinstance(part, tuple)
            condition = part[number]
            assert isinstance(condition, Condition)
            values.append(condition.value)
        conditions.append(Condition(filter=wanted, value=_gradient(values, slices, what)))
    return tuple(conditions)


def _filters(part: Setting | None) -> list[str | None] | None:
    if isinstance(part, tuple) and part and isinstance(part[0], Condition):
        return [each.filter for each in part if isinstance(each, Condition)]
    return None


def _gradient(
    parts: Sequence[Setting | None], slices: Sequence[Slice], what: str
) -> tuple[float, ...]:
    values: list[float] = []
    for part, piece in zip(parts, slices, strict=True):
        if part is None or isinstance(part, str | bool):
            raise JobError(f"{what}: is no number in every slice; give every slice one")
        for layer in range(piece.count):
            position = layer / (piece.count - 1) if piece.count > 1 else 1.0
            value = resolve(part, tensor_name="", depth=position)
            assert value is not None
            values.append(float(value))
    return tuple(values)


def as_route(recipe: Recipe, notes: list[str], *, where: str) -> Recipe:
    """A passthrough merge as a route. Raises JobError if it is none."""
    if recipe.route is not None:
        return recipe
    if recipe.slices is None:
        raise JobError(
            f"{where}: merge_method: passthrough of one whole model is that model; nothing is "
            "left to search"
        )
    stretches = []
    for place, piece in enumerate(recipe.slices):
        [source, *others] = piece.sources
        settings = {**recipe.parameters, **piece.parameters, **source.parameters}
        if others:
            raise JobError(
                f"{where}: slices.{place}: passthrough takes layers of one model; give one source"
            )
        if settings:
            notes.append(
                f"slices.{place}: {', '.join(settings)} left out; the search starts with the "
                "layers as they are"
            )
        stretches.append({"model": source.model, "layers": source.layer_range})
    return Recipe.model_validate(
        {
            "merge_method": "passthrough",
            "route": stretches,
            "out_dtype": recipe.out_dtype,
        }
    )

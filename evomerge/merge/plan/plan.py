"""The plan of a merge: the recipe checked and all parameters resolved, before a tensor is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.merge.methods.averages import COPY
from evomerge.merge.methods.base import Method
from evomerge.merge.methods.registry import METHODS
from evomerge.merge.plan.modules import Part, parts_named, whole
from evomerge.merge.plan.pieces import (
    Layer,
    Piece,
    Scope,
    Structures,
    Values,
    check_scopes,
    no_values,
    refuse_shapes,
    resolver,
)
from evomerge.merge.plan.slices import SlicedStack
from evomerge.merge.plan.whole_models import Names, piece_of_models
from evomerge.recipe import Module, Recipe
from evomerge.route import fold
from evomerge.sources import Structure, is_part, only_weights

# Which tensors of which models make each tensor of the result; no parameter is read here.


@dataclass(frozen=True)
class Layout:
    """A merge split into pieces.

    lead: the model that gives the result its configuration and its tensor names. kept: tensors of
    no piece; they are copied from the lead. layers: prefix of a stack that slices rebuild -> where
    each of its layers comes from, for the configuration.
    """

    lead: str
    pieces: tuple[Piece, ...]
    kept: tuple[str, ...]
    layers: Mapping[str, tuple[Layer, ...]]


def lay_out(recipe: Recipe, structures: Structures) -> Layout:
    """Split a recipe into pieces for opened models. Raises RecipeError where they do not fit."""
    lead = lead_among(recipe.references, structures)
    structures = {
        **structures,
        **only_weights(lead, {name: structures[name] for name in recipe.references}),
    }
    _refuse_other_architectures(recipe.references, lead, structures)
    everything = whole(structures[lead])
    top = Scope("parameters", recipe.parameters)
    layers: dict[str, tuple[Layer, ...]] = {}
    names = Names(lead, structures)
    pieces: list[Piece] = []

    def add(section: Recipe | Module, part: Part, path: str, around: tuple[Scope, ...]) -> None:
        """Add the pieces of the recipe, or of one module of it, for a part of the network."""
        if section.slices is None:
            pieces.append(
                piece_of_models(
                    section.models,
                    part,
                    base=recipe.base_model,
                    lead=lead,
                    structures=structures,
                    names=names,
                    around=around,
                    path=path,
                )
            )
            return
        if part.stack is None:
            raise RecipeError(_no_stack(path, lead, structures))
        sliced = SlicedStack(
            section.slices,
            part,
            base=recipe.base_model,
            lead=lead,
            structures=structures,
            names=names,
            around=around,
            path=path,
        )
        pieces.extend(sliced.pieces)
        layers[part.stack.prefix] = tuple(sliced.layers)

    kept: tuple[str, ...] = ()
    if recipe.modules is None:
        add(recipe, everything, "", (top,))
    else:
        parts = parts_named(recipe.modules, structures[lead])
        for name, module in recipe.modules.items():
            path = f"modules.{name}."
            add(module, parts[name], path, (Scope(f"{path}parameters", module.parameters), top))
        made = {tensor for part in parts.values() for tensor in part.tensors}
        kept = tuple(tensor for tensor in everything.tensors if tensor not in made)
    tokens_differ = recipe.tokenizer_source is not None or recipe.tokenizer is not None
    outer = frozenset(structures[lead].outer) if tokens_differ else frozenset()
    for piece in pieces:
        refuse_shapes(piece.rows, piece.references, structures, where=piece.where, may_differ=outer)
    return Layout(lead=lead, pieces=tuple(pieces), kept=kept, layers=layers)


def lead_among(references: Sequence[str], structures: Structures) -> str:
    """The first model, unless it is a part of another: see `sources.lead_of`."""
    lead = references[0]
    for other in references[1:]:
        if is_part(structures[lead], structures[other]):
            lead = other
    return lead


def _refuse_other_architectures(
    references: Sequence[str], lead: str, structures: Structures
) -> None:
    """Only a part of the lead may be of another architecture."""
    ours = structures[lead]
    for reference in references:
        theirs = structures[reference]
        if theirs.architecture != ours.architecture and not is_part(theirs, ours):
            raise RecipeError(
                f"models: {reference} is a {theirs.architecture} and {lead} a "
                f"{ours.architecture}; merge models of one architecture"
            )


def _no_stack(path: str, lead: str, structures: Structures) -> str:
    if path:
        return f"{path}slices: this module has no numbered layers; write it with models"
    prefixes = ", ".join(stack.prefix.rstrip(".") for stack in structures[lead].stacks)
    return f"slices: {lead} has several stacks of layers ({prefixes}); name one under modules"


@dataclass(frozen=True, slots=True)
class Member:
    """A tensor that a merged tensor is made from: its model, and its name in that model."""

    reference: str
    tensor: str


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """How one tensor of the merged checkpoint is made.

    members: in the recipe's order; a base that it does not list comes last. base: its place among
    them. recipe_values, member_values: parameters of the recipe, and of each member in order.
    """

    name: str
    shape: tuple[int, ...]
    method: Method
    members: tuple[Member, ...]
    base: int | None
    recipe_values: Values
    member_values: tuple[Values, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A merge that can be executed.

    lead: the model that gives the result its configuration. layers: prefix of a stack that slices
    rebuild -> where each of its layers comes from, for the configuration.
    """

    lead: str
    tensors: tuple[TensorPlan, ...]
    layers: Mapping[str, tuple[Layer, ...]]


def check_recipe(recipe: Recipe, structures: Mapping[str, Structure]) -> None:
    """Raise RecipeError, in one line, for a recipe that cannot be executed on these models.

    The reasons are an unknown method or parameter, a value that is missing or out of range, too few
    or too many models, a missing base, and layers or modules that the models do not have.
    """
    plan_merge(recipe, structures)


def plan_merge(recipe: Recipe, structures: Mapping[str, Structure]) -> Plan:
    """Check a recipe and resolve its parameters for every tensor. Raises RecipeError.

    structures: of every model that may be named, by reference. The tensors are in the order of the
    leading model; in stacks made of slices, they are in the order of the result. A route is folded
    into slices first.
    """
    unknown = next((name for name in recipe.references if name not in structures), None)
    if unknown is not None:
        opened = ", ".join(structures)
        raise RecipeError(f"models: {unknown} is not among the models opened here: {opened}")
    recipe = fold(recipe, structures)
    method = _method_of(recipe)
    layout = lay_out(recipe, structures)
    tensors: list[TensorPlan] = []
    for piece in layout.pieces:
        _check_models(piece, method)
        check_scopes([*piece.own, *piece.around], method)
        tensors += _tensors_of(piece, method, layout.lead)
    shapes = structures[layout.lead].shapes
    tensors += [_copy(name, shapes[name], layout.lead) for name in layout.kept]
    if not layout.layers and len(layout.pieces) + len(layout.kept) > 1:
        places = {name: place for place, name in enumerate(shapes)}
        tensors.sort(key=lambda tensor: places[tensor.name])
    return Plan(lead=layout.lead, tensors=tuple(tensors), layers=layout.layers)


def _method_of(recipe: Recipe) -> Method:
    method = METHODS.get(recipe.merge_method)
    if method is None:
        near = difflib.get_close_matches(recipe.merge_method, METHODS, n=1)
        mend = f"did you mean {near[0]}?" if near else f"use one of {', '.join(METHODS)}"
        raise RecipeError(f"merge_method: {recipe.merge_method} is not known here; {mend}")
    return method


def _check_models(piece: Piece, method: Method) -> None:
    if method.needs_base and piece.base is None:
        raise RecipeError(
            f"base_model: {method.name} needs it; name the model the others were fine-tuned from"
        )
    if piece.base is not None and piece.base not in piece.references and not method.weighs_base:
        raise RecipeError(
            f"{piece.where}: {piece.base}, the base, is not among them; "
            f"{method.name} reads its layers too, so add it with its layer_range"
        )
    experts = len(piece.references) - (piece.base in piece.references)
    if method.experts is not None and experts != method.experts:
        raise RecipeError(
            f"{piece.where}: {method.name} takes {method.experts} besides a base, and the "
            f"{piece.whole} names {experts}"
        )
    count, low, high = len(piece.references), method.min_models, method.max_models
    if count < low or (high is not None and count > high):
        wanted = f"exactly {low}" if low == high else f"{low} or more"
        raise RecipeError(
            f"{piece.where}: {method.name} takes {wanted}, the base counted, "
            f"and the {piece.whole} names {count}"
        )


def _tensors_of(piece: Piece, method: Method, lead: str) -> Iterator[TensorPlan]:
    references, base = piece.references, None
    if piece.base in references:
        base = references.index(piece.base)
    resolve_recipe = resolver(method, piece.around, of_model=False)
    resolve_members = [
        no_values
        if place == base and not method.weighs_base
        else resolver(method, [own, *piece.around], of_model=True)
        for place, own in enumerate(piece.own)
    ]
    for row in piece.rows:
        names = [(place, name) for place, name in enumerate(row.tensors) if name is not None]
        places = [place for place, _ in names]
        if len(places) < len(references) and not _suffice(places, base, method):
            yield _copy(row.name, row.shape, lead)
            continue
        yield TensorPlan(
            name=row.name,
            shape=row.shape,
            method=method,
            members=tuple(Member(references[place], name) for place, name in names),
            base=None if base is None else places.index(base),
            recipe_values=resolve_recipe(row.name, row.position),
            member_values=tuple(
                resolve_members[place](name, row.position) for place, name in names
            ),
        )


def _suffice(places: list[int], base: int | None, method: Method) -> bool:
    """Whether a tensor that some models lack can be merged from the others."""
    return (base is None or base in places) and len(places) >= max(2, method.min_models)


def _copy(name: str, shape: tuple[int, ...], lead: str) -> TensorPlan:
    return TensorPlan(name, shape, COPY, (Member(lead, name),), None, {}, ({},))

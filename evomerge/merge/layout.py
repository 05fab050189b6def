"""Which tensors of which models make each tensor of the result; no parameter is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.merge.modules import Part, parts_named, whole
from evomerge.merge.parameters import Scope
from evomerge.merge.pieces import Layer, Piece, Structures, refuse_shapes
from evomerge.merge.slices import SlicedStack
from evomerge.merge.whole_models import Names, piece_of_models
from evomerge.recipe import Module, Recipe
from evomerge.sources import is_part, only_weights


@dataclass(frozen=True)
class Layout:
    """A whole merge taken apart.

    lead: the model whose configuration and names of tensors the result takes. kept: tensors that no
    piece makes; they are the lead's, unchanged. layers: prefix of a stack that slices rebuild ->
    where each of its layers comes from, as its configuration must say.
    """

    lead: str
    pieces: tuple[Piece, ...]
    kept: tuple[str, ...]
    layers: Mapping[str, tuple[Layer, ...]]


def lay_out(recipe: Recipe, structures: Structures) -> Layout:
    """Take a recipe apart over opened models. Raises RecipeError for what does not fit."""
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

    def add(of: Recipe | Module, part: Part, path: str, around: tuple[Scope, ...]) -> None:
        """What the recipe, or a module of it, makes of a part of the network."""
        if of.slices is None:
            pieces.append(
                piece_of_models(
                    of.models,
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
            of.slices,
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
        return f"{path}slices: there are no numbered layers there; write it with models"
    prefixes = ", ".join(stack.prefix.rstrip(".") for stack in structures[lead].stacks)
    return f"slices: {lead} has several runs of layers ({prefixes}); say which under modules"

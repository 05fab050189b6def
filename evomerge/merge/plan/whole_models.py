"""Merging whole models: every tensor with its namesakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evomerge.errors import RecipeError
from evomerge.merge.plan.modules import Part
from evomerge.merge.plan.pieces import Piece, Row, Scope, Structures
from evomerge.recipe import RecipeModel
from evomerge.sources import HEAD, Stack, Structure, correspond, left_over


class Names:
    """The names of the lead's tensors in every model; found once for each model."""

    def __init__(self, lead: str, structures: Structures) -> None:
        self._lead = structures[lead]
        self._structures = structures
        self._found: dict[str, Mapping[str, str]] = {}

    def __getitem__(self, reference: str) -> Mapping[str, str]:
        """Name in the lead -> name in the model, for the tensors that both have; `correspond`."""
        if reference not in self._found:
            other = self._structures[reference]
            same = self._lead.shapes.keys() == other.shapes.keys()
            self._found[reference] = (
                dict(zip(other.shapes, other.shapes, strict=True))
                if same
                else correspond(self._lead, other)
            )
        return self._found[reference]


def piece_of_models(
    models: Sequence[RecipeModel],
    part: Part,
    *,
    base: str | None,
    lead: str,
    structures: Structures,
    names: Names,
    around: tuple[Scope, ...],
    path: str,
) -> Piece:
    """A part of the network merged of whole models; a base not listed is added at the end.

    path: of the module in the recipe, with a point after it; "" for the recipe itself. Raises
    RecipeError for a model that lacks tensors.
    """
    own = {
        entry.model: Scope(f"{path}models.{entry.model}.parameters", entry.parameters, True)
        for entry in models
    }
    if base is not None and base not in own:
        own[base] = Scope(f"{path}models.{base}.parameters", {}, True)
    of_each = [names[reference] for reference in own]
    for reference, found in zip(own, of_each, strict=True):
        _refuse_misfit(reference, found, part, lead, structures, f"{path}models")
    structure = structures[lead]
    rows = tuple(
        Row(
            name,
            structure.shapes[name],
            structure.position_of(name),
            tuple(found.get(name) for found in of_each),
        )
        for name in part.tensors
    )
    return Piece(
        where=f"{path}models",
        whole="module" if path else "recipe",
        references=tuple(own),
        base=base,
        own=tuple(own.values()),
        around=around,
        rows=rows,
    )


def _refuse_misfit(
    reference: str,
    names: Mapping[str, str],
    part: Part,
    lead: str,
    structures: Structures,
    where: str,
) -> None:
    """Only a model without some stack of the lead may lack tensors, and none of its own stacks'."""
    ours, theirs = structures[lead], structures[reference]
    if ours.shapes.keys() == theirs.shapes.keys():
        return
    shared = _shared_stacks(names, ours, theirs)
    for stack, found in shared.items():
        if stack.depth != found.depth:
            raise RecipeError(
                f"{where}: {reference} has {found.depth} layers and {lead} {stack.depth}; "
                "say with slices which layers to merge"
            )
    if ours.tied != theirs.tied:
        own = lead if theirs.tied else reference
        head = next((each for each in (*ours.shapes, *theirs.shapes) if HEAD.search(each)), None)
        if head is not None and head not in names:
            raise RecipeError(
                f"{where}: {own} has a head of its own, {head}, and the other of {reference} "
                f"and {lead} has its embeddings for one (tie_word_embeddings); merge models of "
                "one kind"
            )
    missing = [name for name in part.tensors if name not in names]
    if shared and len(theirs.stacks) < len(ours.stacks):
        missing = [name for name in missing if ours.stack_of(name) in shared]
    if missing:
        raise RecipeError(
            f"{where}: {reference} has no tensor {missing[0]}, which {lead} has; "
            "merge models that are built alike"
        )
    extra = left_over(ours, theirs, names)
    if extra:
        raise RecipeError(
            f"{where}: {reference} has a tensor {extra[0]}, which {lead} has not; "
            "merge models that are built alike"
        )


def _shared_stacks(
    names: Mapping[str, str], lead: Structure, other: Structure
) -> dict[Stack, Stack]:
    """The lead's stack -> the other's that corresponds to it."""
    shared: dict[Stack, Stack] = {}
    for name, found in names.items():
        ours, theirs = lead.stack_of(name), other.stack_of(found)
        if ours is not None and theirs is not None:
            shared.setdefault(ours, theirs)
    return shared

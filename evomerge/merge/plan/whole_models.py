"""Merging whole models: each tensor is merged with the tensors of the same name."""

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
        """Name in the lead -> name in the model, for tensors that both have; see `correspond`."""
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
    """A part of the network merged from whole models; a base that is not listed comes last.

    path: the module's place in the recipe, with a dot after it; "" for the recipe itself. Raises
    RecipeError for a model that lacks tensors.
    """
    own = {
        entry.model: Scope(f"{path}models.{entry.model}.parameters", entry.parameters, True)
        for entry in models
    }
    if base is not None and base not in own:
        own[base] = Scope(f"{path}models.{base}.parameters", {}, True)
    names_in_models = [names[reference] for reference in own]
    for reference, found in zip(own, names_in_models, strict=True):
        _refuse_misfit(reference, found, part, lead, structures, f"{path}models")
    structure = structures[lead]
    rows = tuple(
        Row(
            name,
            structure.shapes[name],
            structure.position_of(name),
            tuple(found.get(name) for found in names_in_models),
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
    """Raise RecipeError for missing or extra tensors. A model may lack whole stacks of the lead."""
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
        head = next((name for name in (*ours.shapes, *theirs.shapes) if HEAD.search(name)), None)
        if head is not None and head not in names:
            raise RecipeError(
                f"{where}: {own} has a head of its own, {head}, and the other of {reference} "
                f"and {lead} uses its embeddings as the head (tie_word_embeddings); merge models "
                "of one kind"
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
            f"{where}: {reference} has a tensor {extra[0]}, which {lead} does not have; "
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

"""Merging slices of layers: the result's layers are numbered in the order of the slices.

As in mergekit, tensors before the layers (embeddings) are merged as the first slice says, and
tensors after them (the final norm, the head) as the last slice says. All models of the last slice
count; mergekit counts only as many as the first slice has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from evomerge.errors import RecipeError
from evomerge.merge.plan.modules import Part
from evomerge.merge.plan.pieces import Layer, Piece, Row, Scope, Structures
from evomerge.merge.plan.whole_models import Names
from evomerge.recipe import Slice, SliceSource
from evomerge.sources import Stack, Structure

# The head of GPT-NeoX is called embed_out.
_BEFORE_LAYERS = re.compile(
    r"embed(?!_out)|embd|\bwte\b|\bwpe\b|\bshared\b|relative_pe|patch|conv|_pre\b|rotary"
)

_Tower = tuple[Mapping[str, str], ...]
"""For each layer of a stack: the end of a tensor's name, after the number -> the whole name."""


class SlicedStack:
    """One stack of the network, rebuilt from slices."""

    def __init__(
        self,
        slices: Sequence[Slice],
        part: Part,
        *,
        base: str | None,
        lead: str,
        structures: Structures,
        names: Names,
        around: tuple[Scope, ...],
        path: str,
    ) -> None:
        """Arguments as in `piece_of_models`. Raises RecipeError for layers that do not fit."""
        assert part.stack is not None
        self._stack = part.stack
        self._base = base
        self._lead = lead
        self._structures = structures
        self._names = names
        self._towers: dict[str, _Tower] = {}
        first = _tower(structures[lead], part.stack)
        # T5 keeps the position bias of all layers in the first: it stays there.
        self._stays = _first_layers_own(first)
        # Layers numbered past the depth only predict further tokens; a sliced model drops them.
        outside = [name for name in part.tensors if not name.startswith(part.stack.prefix)]
        before = [first[0][end] for end in sorted(self._stays)]
        before += [name for name in outside if is_before_layers(name)]
        after = [name for name in outside if not is_before_layers(name)]
        self.layers: list[Layer] = []
        self.pieces: list[Piece] = []
        for place, piece in enumerate(slices):
            where = f"{path}slices.{place}.sources"
            rows = self._rows(piece, where)
            if place == 0:
                rows = [*self._outer_rows(piece, before, where), *rows]
            if place == len(slices) - 1:
                rows += self._outer_rows(piece, after, where)
            self.pieces.append(self._piece(piece, f"{path}slices.{place}", rows, around))

    def _piece(
        self, piece: Slice, where: str, rows: Sequence[Row], around: tuple[Scope, ...]
    ) -> Piece:
        own = tuple(
            Scope(f"{where}.sources.{source.model}.parameters", source.parameters, True)
            for source in piece.sources
        )
        return Piece(
            where=f"{where}.sources",
            whole="slice",
            references=tuple(source.model for source in piece.sources),
            base=piece.base_model or self._base,
            own=own,
            around=(Scope(f"{where}.parameters", piece.parameters), *around),
            rows=tuple(rows),
        )

    def _rows(self, piece: Slice, where: str) -> list[Row]:
        """The layers of one slice, with the tensors of its base or else of its first source."""
        towers = [self._tower_of(source, where) for source in piece.sources]
        base = piece.base_model or self._base
        place = next(
            (index for index, source in enumerate(piece.sources) if source.model == base), 0
        )
        leading = piece.sources[place]
        shapes = self._structures[leading.model].shapes
        rows = []
        for step in range(piece.count):
            position = step / (piece.count - 1) if piece.count > 1 else 1.0
            layers = [
                tower[source.layer_range[0] + step]
                for tower, source in zip(towers, piece.sources, strict=True)
            ]
            _refuse_unlike(layers, place, piece, step, self._stays, where)
            prefix = f"{self._stack.prefix}{len(self.layers)}."
            rows += [
                Row(prefix + end, shapes[name], position, tuple(layer[end] for layer in layers))
                for end, name in layers[place].items()
                if end not in self._stays
            ]
            self.layers.append(Layer(leading.model, leading.layer_range[0] + step))
        return rows

    def _outer_rows(self, piece: Slice, outside: Sequence[str], where: str) -> list[Row]:
        lead = self._structures[self._lead]
        names = [self._names[source.model] for source in piece.sources]
        for source, found in zip(piece.sources, names, strict=True):
            missing = next((name for name in outside if name not in found), None)
            # A model without one of the lead's stacks may also lack the tensors around that stack.
            if missing and len(self._structures[source.model].stacks) >= len(lead.stacks):
                raise RecipeError(
                    f"{where}: {source.model} has no tensor {missing}, which {self._lead} has; "
                    "merge models that are built alike"
                )
        return [
            Row(name, lead.shapes[name], 0.0, tuple(found.get(name) for found in names))
            for name in outside
        ]

    def _tower_of(self, source: SliceSource, where: str) -> _Tower:
        tower = self._towers.get(source.model)
        if tower is None:
            tower = self._towers[source.model] = _tower(
                self._structures[source.model], self._stack_in(source.model, where)
            )
        if source.layer_range[1] > len(tower):
            raise RecipeError(
                f"{where}.{source.model}.layer_range: {list(source.layer_range)} is beyond the "
                f"{len(tower)} layers of the model; end it at {len(tower)}"
            )
        return tower

    def _stack_in(self, reference: str, where: str) -> Stack:
        """The model's stack that corresponds to the one rebuilt."""
        structure = self._structures[reference]
        for ours, theirs in self._names[reference].items():
            if self._stack.layer_of(ours) is not None:
                found = structure.stack_of(theirs)
                if found is not None:
                    return found
        raise RecipeError(
            f"{where}: {reference} has no layers {self._stack.prefix.rstrip('.')}; "
            "name a model that has"
        )


def is_before_layers(name: str) -> bool:
    """Whether a tensor outside the layers is read before them: an embedding, a convolution."""
    return bool(_BEFORE_LAYERS.search(name))


def modules_of_the_first(structure: Structure, stack: Stack) -> frozenset[str]:
    """Modules that the first layer of a stack has for all layers, by their name in the layer."""
    own = _first_layers_own(_tower(structure, stack))
    return frozenset(end.rpartition(".")[0] for end in own)


def _tower(structure: Structure, stack: Stack) -> _Tower:
    layers: list[dict[str, str]] = [{} for _ in range(stack.depth)]
    for name in structure.shapes:
        layer = stack.layer_of(name)
        if layer is not None:
            layers[layer][name[len(stack.prefix) :].partition(".")[2]] = name
    return tuple(layers)


def _first_layers_own(tower: _Tower) -> frozenset[str]:
    """Tensors of the first layer alone; none unless it also has all tensors of the others."""
    others = {end for layer in tower[1:] for end in layer}
    mine = set(tower[0])
    return frozenset(mine - others) if others and others < mine else frozenset()


def _refuse_unlike(
    layers: Sequence[Mapping[str, str]],
    leading: int,
    piece: Slice,
    step: int,
    stays: frozenset[str],
    where: str,
) -> None:
    """Layers merged with each other must be made of the same tensors."""
    wanted = layers[leading].keys() - stays
    for layer, source in zip(layers, piece.sources, strict=True):
        unmatched = sorted(wanted ^ (layer.keys() - stays))
        if unmatched:
            leading_source = piece.sources[leading]
            raise RecipeError(
                f"{where}: layer {source.layer_range[0] + step} of {source.model} and layer "
                f"{leading_source.layer_range[0] + step} of {leading_source.model} do not both "
                f"have {unmatched[0]}; merge layers that are built alike"
            )

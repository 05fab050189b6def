"""The pieces a merge is taken apart into: tensors merged of the same models in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.merge.parameters import Scope
from evomerge.sources import Structure

Structures = Mapping[str, Structure]
"""Every opened model's structure, by reference."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a model."""

    reference: str
    number: int


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor of the result: where it lies over depth, and its name in every model of the piece.

    position: i/(L-1) in its slice (or stack), 0 outside the layers. tensors: None where a model has
    no such tensor.
    """

    name: str
    shape: tuple[int, ...]
    position: float
    tensors: tuple[str | None, ...]


@dataclass(frozen=True)
class Piece:
    """Tensors that are merged of the same models.

    own: each model's scope of parameters. around: the scopes about those, innermost first. base:
    the base model, whether or not it is among the models. where, whole: the field that lists the
    models and what it belongs to, for messages.
    """

    where: str
    whole: str
    references: tuple[str, ...]
    base: str | None
    own: tuple[Scope, ...]
    around: tuple[Scope, ...]
    rows: tuple[Row, ...]


def refuse_shapes(
    rows: Sequence[Row],
    references: Sequence[str],
    structures: Structures,
    *,
    where: str,
    may_differ: frozenset[str],
) -> None:
    """Raise RecipeError for the first tensor whose shape is another in one of the models.

    may_differ: rows of the result whose tensors have a row a token, which are put in order later.
    """
    shapes = [structures[reference].shapes for reference in references]
    for row in rows:
        for reference, of, name in zip(references, shapes, row.tensors, strict=True):
            if name is None or of[name] == row.shape or row.name in may_differ:
                continue
            mend = "merge models that are built alike"
            if of[name][1:] == row.shape[1:] and row.position == 0.0:
                mend += ", or give them one vocabulary: `tokenizer: {source: union}`"
            raise RecipeError(
                f"{where}: {name} of {reference} has shape {list(of[name])}, and {row.name} "
                f"{list(row.shape)}; {mend}"
            )

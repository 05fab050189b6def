"""The pieces of a merge: tensors that are merged from the same models in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.merge.methods.base import Method, ParameterSpec, Value
from evomerge.recipe import Condition, Scalar, Setting, Settings, resolve_in
from evomerge.sources import Structure

# The parameters of a recipe: checked against a method's, and resolved for one tensor.
#
# A scope is a part of the recipe that holds parameters (a source of a slice, the slice, a module,
# the recipe itself). The innermost scope with a value for a tensor decides.


Values = Mapping[str, Value]
"""Parameters of a method for one tensor, by name."""

Resolver = Callable[[str, float], Values]
"""(tensor name, position over depth) -> values."""


_CHANGE_NOTHING = frozenset({"int8_mask"})
"""Parameters that mergekit accepts for every method and that do not change the result."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One part of a recipe with parameters. where: for messages. of_model: whether of one model."""

    where: str
    settings: Settings
    of_model: bool = False


def check_scopes(scopes: Sequence[Scope], method: Method) -> None:
    """Raise RecipeError for a name the method does not have or a value it does not allow.

    Every value is checked, whichever tensors it is for. Gradients lie between checked values.
    """
    for scope in scopes:
        for name, setting in scope.settings.items():
            where = f"{scope.where}.{name}"
            spec = method.parameters.get(name)
            if spec is None and name not in method.ignored | _CHANGE_NOTHING:
                known = ", ".join(method.parameters)
                raise RecipeError(f"{where}: {method.name} has no such parameter; it has {known}")
            if spec is not None and spec.scope == "recipe" and scope.of_model:
                raise RecipeError(
                    f"{where}: belongs to the whole recipe; move it to the top-level parameters"
                )
            if spec is not None:
                _check_values(setting, spec, where)


def _check_values(setting: Setting, spec: ParameterSpec, where: str) -> None:
    for value, in_gradient in _values_in(setting):
        if in_gradient and spec.kind != "number":
            raise RecipeError(f"{where}: takes no gradient over depth; give one value or filters")
        spec.read(value, where=where)


def _values_in(setting: Setting) -> Iterator[tuple[Scalar, bool]]:
    if not isinstance(setting, tuple):
        yield setting, False
        return
    for part in setting:
        if isinstance(part, Condition):
            yield from _values_in(part.value)
        else:
            yield part, True


def no_values(tensor_name: str, position: float) -> Values:
    """The values of a model that takes no parameters."""
    return {}


def resolver(method: Method, scopes: Sequence[Scope], *, of_model: bool) -> Resolver:
    """A function that gives the method's parameters of a model (or of the recipe) for a tensor.

    scopes: innermost first, the recipe's last. Most values are the same for every tensor; they are
    read once. Raises RecipeError for a missing value; so does the returned function.
    """
    wanted, where = ("model", scopes[0].where) if of_model else ("recipe", scopes[-1].where)
    fixed: dict[str, Value] = {}
    varying: dict[str, ParameterSpec] = {}
    for name, spec in method.parameters.items():
        if spec.scope != wanted:
            continue
        setting = next((scope.settings[name] for scope in scopes if name in scope.settings), None)
        if isinstance(setting, tuple):
            varying[name] = spec
        elif setting is not None:
            fixed[name] = spec.read(setting, where=f"{where}.{name}")
        elif spec.default is not None:
            fixed[name] = spec.default
        else:
            raise RecipeError(f"{where}: {name} is missing, which {method.name} needs; add it")
    if not varying:
        return lambda tensor_name, position: fixed
    settings = [scope.settings for scope in scopes]

    def resolve(tensor_name: str, position: float) -> Values:
        values = dict(fixed)
        for name, spec in varying.items():
            value = resolve_in(settings, name, tensor_name=tensor_name, depth=position)
            if value is not None:
                values[name] = spec.read(value, where=f"{where}.{name}")
            elif spec.default is not None:
                values[name] = spec.default
            else:
                raise RecipeError(
                    f"{where}.{name}: no filter matches {tensor_name}; "
                    "end the list with a value that has no filter"
                )
        return values

    return resolve


Structures = Mapping[str, Structure]
"""Every opened model's structure, by reference."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a model."""

    reference: str
    number: int


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor of the result: its position over depth, and its name in every model of the piece.

    position: i/(L-1) in its slice (or stack), 0 outside the layers. tensors: None where a model has
    no such tensor.
    """

    name: str
    shape: tuple[int, ...]
    position: float
    tensors: tuple[str | None, ...]


@dataclass(frozen=True)
class Piece:
    """Tensors that are merged from the same models.

    own: each model's scope of parameters. around: the outer scopes, innermost first. base: the base
    model, whether or not it is among the models. where, whole: for messages, the field that lists
    the models and the part of the recipe that it belongs to.
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
    """Raise RecipeError for the first tensor that has another shape in one of the models.

    may_differ: names of tensors with one row for each token; the vocabulary aligns them later.
    """
    shapes = [structures[reference].shapes for reference in references]
    for row in rows:
        for reference, own_shapes, name in zip(references, shapes, row.tensors, strict=True):
            if name is None or own_shapes[name] == row.shape or row.name in may_differ:
                continue
            mend = "merge models that are built alike"
            if own_shapes[name][1:] == row.shape[1:] and row.position == 0.0:
                mend += ", or give them one vocabulary: `tokenizer: {source: union}`"
            raise RecipeError(
                f"{where}: {name} of {reference} has shape {list(own_shapes[name])}, and "
                f"{row.name} {list(row.shape)}; {mend}"
            )

"""The pieces a merge is taken apart into: tensors merged of the same models in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.merge.methods.base import Method, ParameterSpec, Value
from evomerge.recipe import Condition, Scalar, Setting, Settings, resolve_in
from evomerge.sources import Structure

# The parameters of a recipe: checked against a method's, and resolved for one tensor.
#
# A scope is a place of the recipe that holds parameters (a source of a slice, the slice, a
# module, the recipe itself); the innermost that has a value for a tensor decides.


Values = Mapping[str, Value]
"""Parameters of a method for one tensor, by name."""

Resolver = Callable[[str, float], Values]
"""(tensor name, position over depth) -> values."""


_CHANGE_NOTHING = frozenset({"int8_mask"})
"""What mergekit's recipes give to any method and what changes no number: how it uses memory."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One place of a recipe with parameters. where: for messages. of_model: one model's own."""

    where: str
    settings: Settings
    of_model: bool = False


def check_scopes(scopes: Sequence[Scope], method: Method) -> None:
    """Raise RecipeError for a name the method does not have or a value it does not allow.

    Every value written is read, wherever it applies; what lies between two is in range too.
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
                    f"{where}: is one for the whole recipe; move it to the top-level parameters"
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
    """What the method's parameters of a model (or those of the recipe) are for each tensor.

    scopes: innermost first, the recipe's last. Values that are the same for every tensor are read
    once; most are, and there are many tensors. Raises RecipeError for one that is missing, also
    when called.
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

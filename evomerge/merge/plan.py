"""The plan of a merge: a recipe checked and every parameter resolved, before any tensor is read.

Knows the methods' parameters and a checkpoint's structure; reads no file and computes no tensor.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.merge.method import Method, ParameterSpec, Value
from evomerge.merge.methods import METHODS
from evomerge.recipe import Condition, Recipe, Scalar, Setting
from evomerge.sources import Structure

Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """The parameters of one tensor: of the recipe, and of each member in order."""

    name: str
    recipe_values: Values
    member_values: tuple[Values, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A merge that can be executed.

    members: the models in the recipe's order; a base that it does not list comes last.
    base: place of the base among the members.
    """

    method: Method
    members: tuple[str, ...]
    base: int | None
    tensors: tuple[TensorPlan, ...]


def check_recipe(recipe: Recipe, structure: Structure) -> None:
    """Raise RecipeError, in one line, for a recipe that cannot be executed on such models.

    Refused are an unknown method or parameter, a value missing or out of range, too few or too
    many models, and a missing base.
    """
    plan_merge(recipe, structure)


def plan_merge(recipe: Recipe, structure: Structure) -> Plan:
    """Check a recipe and resolve its parameters for every tensor. Raises RecipeError."""
    method = _method_of(recipe)
    members = tuple(entry.model for entry in recipe.models)
    if recipe.base_model is not None and recipe.base_model not in members:
        members = (*members, recipe.base_model)
    _check_models(recipe, method, len(members))
    _check_names(recipe, method)
    base = None if recipe.base_model is None else members.index(recipe.base_model)
    of_recipe = _resolver(recipe, method, structure, scope="recipe", model=None)
    of_members = [
        _no_values
        if index == base and not method.weighs_base
        else _resolver(recipe, method, structure, scope="model", model=member)
        for index, member in enumerate(members)
    ]
    tensors = tuple(
        TensorPlan(name, of_recipe(name), tuple(resolve(name) for resolve in of_members))
        for name in structure.shapes
    )
    return Plan(method=method, members=members, base=base, tensors=tensors)


def _method_of(recipe: Recipe) -> Method:
    method = METHODS.get(recipe.merge_method)
    if method is None:
        near = difflib.get_close_matches(recipe.merge_method, METHODS, n=1)
        mend = f"did you mean {near[0]}?" if near else f"use one of {', '.join(METHODS)}"
        raise RecipeError(f"merge_method: {recipe.merge_method} is not known here; {mend}")
    return method


def _check_models(recipe: Recipe, method: Method, count: int) -> None:
    if method.needs_base and recipe.base_model is None:
        raise RecipeError(
            f"base_model: {method.name} needs it; name the model the others were fine-tuned from"
        )
    low, high = method.min_models, method.max_models
    if count < low or (high is not None and count > high):
        wanted = f"exactly {low}" if low == high else f"{low} or more"
        raise RecipeError(
            f"models: {method.name} takes {wanted}, the base counted, and the recipe names {count}"
        )


def _check_names(recipe: Recipe, method: Method) -> None:
    for model, parameters in _scopes(recipe):
        for name in parameters:
            where = f"{_scope_name(model)}.{name}"
            spec = method.parameters.get(name)
            if spec is None and name not in method.ignored:
                known = ", ".join(method.parameters)
                raise RecipeError(f"{where}: {method.name} has no such parameter; it has {known}")
            if spec is not None and spec.scope == "recipe" and model is not None:
                raise RecipeError(
                    f"{where}: is one for the whole recipe; move it to the top-level parameters"
                )
            if spec is not None:
                _check_values(parameters[name], spec, where)


def _check_values(setting: Setting, spec: ParameterSpec, where: str) -> None:
    """Every value written, wherever it applies; what is interpolated between lies in range too."""
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


def _scopes(recipe: Recipe) -> Iterator[tuple[str | None, Mapping[str, Setting]]]:
    for entry in recipe.models:
        yield entry.model, entry.parameters
    yield None, recipe.parameters


def _scope_name(model: str | None) -> str:
    return "parameters" if model is None else f"models.{model}.parameters"


def _no_values(tensor_name: str) -> Values:
    return {}


def _resolver(
    recipe: Recipe, method: Method, structure: Structure, *, scope: str, model: str | None
) -> Callable[[str], Values]:
    """tensor name -> values of the method's parameters of one scope.

    Values that are the same for every tensor are read once; most are, and there are many tensors.
    """
    specs = {name: spec for name, spec in method.parameters.items() if spec.scope == scope}
    fixed: dict[str, Value] = {}
    varying: dict[str, ParameterSpec] = {}
    for name, spec in specs.items():
        setting = _first_setting(recipe, name, model)
        if isinstance(setting, tuple):
            varying[name] = spec
        elif setting is not None:
            fixed[name] = spec.read(setting, where=f"{_scope_name(model)}.{name}")
        elif spec.default is not None:
            fixed[name] = spec.default
        else:
            where = _scope_name(model)
            raise RecipeError(f"{where}: {name} is missing, which {method.name} needs; add it")

    def resolve(tensor_name: str) -> Values:
        if not varying:
            return fixed
        depth = _depth_of(tensor_name, structure)
        values = dict(fixed)
        for name, spec in varying.items():
            where = f"{_scope_name(model)}.{name}"
            value = recipe.setting_of(name, model=model, tensor_name=tensor_name, depth=depth)
            if value is not None:
                values[name] = spec.read(value, where=where)
            elif spec.default is not None:
                values[name] = spec.default
            else:
                raise RecipeError(
                    f"{where}: no filter matches {tensor_name}; "
                    "end the list with a value that has no filter"
                )
        return values

    return resolve


def _first_setting(recipe: Recipe, name: str, model: str | None) -> Setting | None:
    """The setting of the innermost scope that has one, as written."""
    for scope, parameters in _scopes(recipe):
        if scope in (model, None) and name in parameters:
            return parameters[name]
    return None


def _depth_of(tensor_name: str, structure: Structure) -> float:
    """i/(L-1) for layer i of L, 1 when L is 1, 0 outside the layers."""
    layer = structure.layer_of(tensor_name)
    if layer is None:
        return 0.0
    return 1.0 if structure.depth == 1 else layer / (structure.depth - 1)

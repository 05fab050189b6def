"""A route as a list of hops, and as the stretches that a recipe has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.recipe import Recipe, Stretch
from evomerge.sources import Structure


@dataclass(frozen=True, slots=True)
class Hop:
    """One layer on a route.

    model: reference as in the recipe. layer: its number in the model. scale: multiplies the whole
    residual stream before the layer.
    """

    model: str
    layer: int
    scale: float = 1.0


def hops_of(recipe: Recipe) -> tuple[Hop, ...]:
    """Every layer that the recipe's route passes through, in order."""
    assert recipe.route is not None, "the recipe has no route"
    return tuple(
        Hop(stretch.model, layer, stretch.scale if layer == stretch.layers[0] else 1.0)
        for stretch in recipe.route
        for layer in range(*stretch.layers)
    )


def stretches_of(hops: Sequence[Hop]) -> tuple[Stretch, ...]:
    """The hops as a recipe has them, in as few stretches as possible."""
    found: list[list[Hop]] = []
    for hop in hops:
        last = found[-1][-1] if found else None
        follows = last is not None and (hop.model, hop.layer) == (last.model, last.layer + 1)
        if follows and hop.scale == 1.0:
            found[-1].append(hop)
        else:
            found.append([hop])
    return tuple(
        Stretch(model=run[0].model, layers=(run[0].layer, run[-1].layer + 1), scale=run[0].scale)
        for run in found
    )


def check_route(recipe: Recipe, structures: Mapping[str, Structure]) -> None:
    """Raise RecipeError, in one line, for a route that its models do not have.

    structures: of the route's models, by reference.
    """
    if recipe.route is not None and recipe.parameters:
        raise RecipeError(
            f"parameters.{next(iter(recipe.parameters))}: a route has no parameters; give a "
            "stretch its `scale`"
        )
    for place, stretch in enumerate(recipe.route or ()):
        stacks = structures[stretch.model].stacks
        if len(stacks) > 1:
            prefixes = ", ".join(stack.prefix.rstrip(".") for stack in stacks)
            raise RecipeError(
                f"route.{place}.model: {stretch.model} has several stacks of layers "
                f"({prefixes}), and a route needs one; name models with one stack"
            )
        depth = structures[stretch.model].depth
        if stretch.layers[1] > depth:
            raise RecipeError(
                f"route.{place}.layers: {list(stretch.layers)} is beyond the {depth} layers of "
                f"{stretch.model}; end it at {depth}"
            )

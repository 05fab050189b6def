"""Folding: a route with scales written as a plain merge of slices, the same model to the reader.

With s the product of the scales up to a layer, the folded model carries h/s where the routed one
carries h. Norms do not see a positive s, so that a layer is what it was but for what it adds to the
stream, which is divided by s: its output projections, or the norms behind them. Through the norms
before its branches a negative s is seen as -1, so those are negated, and the final one where the
last s is negative. Where a layer reads the stream itself (OLMo 2), the weights that read it are
multiplied by s. Embeddings and heads stay, tied or not.

The result is exact but for the norms' epsilon, which weighs s² times as much as on the route: where
|s| is so small that the routed stream comes near it, the folded one does not. On a random Llama the
logits differ by 1% at s = 0.01, and by roundings from 1 to 1000.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.recipe import Condition, Parameters, Recipe, Slice, SliceSource
from evomerge.route.architectures import Block, require_foldable
from evomerge.route.route import check_route
from evomerge.sources import Structure

_LARGEST = 2.0**126
"""Of a product of scales and of its inverse: both are normal numbers in float32."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive layers of one model. product: of all scales up to them."""

    model: str
    layers: tuple[int, int]
    product: float


def fold(recipe: Recipe, structures: Mapping[str, Structure]) -> Recipe:
    """The same model as a recipe of slices; a recipe without a route as it is.

    structures: of the route's models, by reference. Embeddings are the first hop's model's, final
    norm and head the last one's. Parameters are `scale`, and `shift` where a norm multiplies by one
    plus its gain (Gemma), which only our `passthrough` knows. Raises RecipeError for layers that
    are not there and scales that cannot be folded.
    """
    if recipe.route is None:
        return recipe
    check_route(recipe, structures)
    block = _block(recipe, structures)
    slices = []
    for run in _runs(recipe):
        parameters = _parameters(block, run.product)
        source = SliceSource(model=run.model, layer_range=run.layers, parameters=parameters)
        slices.append(Slice(sources=(source,)))
    return recipe.model_copy(update={"route": None, "slices": tuple(slices)})


def published(recipe: Recipe, structures: Mapping[str, Structure]) -> Recipe:
    """The form that mergekit executes to the same model; the recipe as it is where there is none.

    mergekit knows no `shift` and would leave it out without a word; of a `route` it says that it
    cannot be executed. structures: of all models and stages, by reference. Raises RecipeError as
    `fold` does.
    """
    stages = {name: published(stage, structures) for name, stage in recipe.used_stages.items()}
    folded = fold(recipe, structures)
    shifts = any(
        "shift" in source.parameters for piece in folded.slices or () for source in piece.sources
    )
    form = recipe if shifts else folded
    return form.model_copy(update={"stages": {**recipe.stages, **stages}})


def _runs(recipe: Recipe) -> list[_Run]:
    """The route in as few runs of layers as share a model and a product."""
    runs: list[_Run] = []
    product = 1.0
    for place, stretch in enumerate(recipe.route or ()):
        product *= stretch.scale
        if not 1.0 / _LARGEST <= abs(product) <= _LARGEST:
            raise RecipeError(
                f"route.{place}.scale: the scales up to here multiply to {product:g}, which "
                "float32 cannot hold; give numbers nearer to 1"
            )
        first, end = stretch.layers
        last = runs[-1] if runs else _Run("", (0, 0), 0.0)
        if (last.model, last.layers[1], last.product) == (stretch.model, first, product):
            first = runs.pop().layers[0]
        runs.append(_Run(stretch.model, (first, end), product))
    return runs


def _block(recipe: Recipe, structures: Mapping[str, Structure]) -> Block | None:
    """How the layers of the route's models are built; None where no scale asks for it."""
    assert recipe.route is not None
    scaled = next((n for n, stretch in enumerate(recipe.route) if stretch.scale != 1.0), None)
    if scaled is None:
        return None
    models = dict.fromkeys(stretch.model for stretch in recipe.route)
    blocks = [require_foldable(structures[model], f"route.{scaled}.scale") for model in models]
    return blocks[0]


def _parameters(block: Block | None, product: float) -> Parameters:
    """What the tensors of layers that carry h/product instead of h are scaled and shifted by.

    The final norm goes with the layers that it follows: its filter hits nothing in other slices.
    """
    if block is None or product == 1.0:
        return {}
    changes = [(part, 1.0 / product, 0.0) for part in (*block.outputs, *block.outputs_elsewhere)]
    changes += [(part, 1.0 / product, block.offset) for part in block.output_gains]
    changes += [(part, product, 0.0) for part in block.inputs]
    if product < 0.0:
        changes += [(part, -1.0, block.offset) for part in (*block.gains, block.final_gain)]
    # A gain of c + g that is to be f·(c + g) is stored as f·g + (f - 1)·c.
    factors = {part: factor for part, factor, _ in changes}
    shifts = {part: (factor - 1.0) * offset for part, factor, offset in changes if offset}
    parameters: Parameters = {"scale": _conditions(factors, 1.0)}
    if shifts:
        parameters["shift"] = _conditions(shifts, 0.0)
    return parameters


def _conditions(values: Mapping[str, float], otherwise: float) -> tuple[Condition, ...]:
    """The values of tensors by parts of their names, and that of all others."""
    filters = [Condition(filter=part, value=value) for part, value in values.items()]
    return (*filters, Condition(value=otherwise))

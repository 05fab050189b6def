"""Folding: writes a route with scales as a plain merge of slices that gives the same model.

Let s be the product of the scales up to a layer. Where the routed model has the stream h, the
folded model has h/s. Norms remove a positive s, so a layer changes only in what it adds to the
stream: its output projections, or the norms after them, are divided by s. Norms turn a negative s
into -1, so the norms before the branches are negated, and the final norm if the last s is negative.
Where a layer reads the stream itself (OLMo 2), the weights that read it are multiplied by s.
Embeddings and heads stay unchanged, tied or not.

The result is exact except for the norms' epsilon, which has s² times its weight on the route. This
matters where |s| is so small that the routed stream comes near epsilon, for the folded stream does
not. On a random Llama the logits differ by 1% at s = 0.01, and by rounding only from 1 to 1000.
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
"""The largest product of scales, or its inverse: both are normal numbers in float32."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive layers of one model. product: of all scales up to them."""

    model: str
    layers: tuple[int, int]
    product: float


def fold(recipe: Recipe, structures: Mapping[str, Structure]) -> Recipe:
    """The same model as a recipe of slices; a recipe without a route is returned unchanged.

    structures: of the route's models, by reference. Embeddings come from the model of the first
    hop, final norm and head from that of the last hop. Parameters are `scale`, and `shift` where a
    norm multiplies by one plus its gain (Gemma); only our `passthrough` has `shift`. Raises
    RecipeError for missing layers and for scales that cannot be folded.
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
    """The form that mergekit can execute to the same model; the recipe itself if there is none.

    mergekit has no `shift` and would ignore it silently, but it refuses a `route` with an error. So
    a recipe that needs `shift` keeps its route. structures: of all models and stages, by reference.
    Raises RecipeError as `fold` does.
    """
    stages = {name: published(stage, structures) for name, stage in recipe.used_stages.items()}
    folded = fold(recipe, structures)
    shifts = any(
        "shift" in source.parameters for piece in folded.slices or () for source in piece.sources
    )
    form = recipe if shifts else folded
    return form.model_copy(update={"stages": {**recipe.stages, **stages}})


def _runs(recipe: Recipe) -> list[_Run]:
    """The route as runs of layers with one model and one product, as few as possible."""
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
    """How the layers of the route's models are built; None where the route has no scale."""
    assert recipe.route is not None
    scaled = next((n for n, stretch in enumerate(recipe.route) if stretch.scale != 1.0), None)
    if scaled is None:
        return None
    models = dict.fromkeys(stretch.model for stretch in recipe.route)
    blocks = [require_foldable(structures[model], f"route.{scaled}.scale") for model in models]
    return blocks[0]


def _parameters(block: Block | None, product: float) -> Parameters:
    """Scales and shifts for the tensors of layers with the stream h/product instead of h.

    The final norm belongs to the last slice; in other slices its filter matches nothing.
    """
    if block is None or product == 1.0:
        return {}
    changes = [(part, 1.0 / product, 0.0) for part in (*block.outputs, *block.outputs_elsewhere)]
    changes += [(part, 1.0 / product, block.offset) for part in block.output_gains]
    changes += [(part, product, 0.0) for part in block.inputs]
    if product < 0.0:
        changes += [(part, -1.0, block.offset) for part in (*block.gains, block.final_gain)]
    # To turn a gain of c + g into f·(c + g), store f·g + (f - 1)·c.
    factors = {part: factor for part, factor, _ in changes}
    shifts = {part: (factor - 1.0) * offset for part, factor, offset in changes if offset}
    parameters: Parameters = {"scale": _conditions(factors, 1.0)}
    if shifts:
        parameters["shift"] = _conditions(shifts, 0.0)
    return parameters


def _conditions(values: Mapping[str, float], otherwise: float) -> tuple[Condition, ...]:
    """Conditions: values for tensors by parts of their names, then one for all others."""
    filters = [Condition(filter=part, value=value) for part, value in values.items()]
    return (*filters, Condition(value=otherwise))

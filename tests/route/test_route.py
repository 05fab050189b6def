"""Routes as hops and as stretches, and what is refused of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.recipe import Recipe, Stretch, read_recipe
from evomerge.route import Hop, check_route, hops_of, stretches_of
from evomerge.sources import Stack, Structure

HOPS = st.lists(
    st.builds(
        Hop,
        model=st.sampled_from(["a", "b"]),
        layer=st.integers(0, 4),
        scale=st.sampled_from([1.0, 1.0, 1.0, 0.5, -2.0]),
    ),
    min_size=1,
    max_size=12,
)


def a_model(*stacks: Stack) -> Structure:
    return Structure(architecture="Net", shapes={}, dtype="float32", tied=False, stacks=stacks)


def a_recipe(*stretches: Stretch, **fields: object) -> Recipe:
    return Recipe.model_validate({"merge_method": "passthrough", "route": stretches, **fields})


def test_a_scale_is_that_of_the_first_layer_of_its_stretch() -> None:
    recipe = a_recipe(
        Stretch(model="a", layers=(0, 2)), Stretch(model="b", layers=(3, 5), scale=1.2)
    )
    assert hops_of(recipe) == (Hop("a", 0), Hop("a", 1), Hop("b", 3, 1.2), Hop("b", 4))


def test_a_stretch_ends_where_the_model_the_order_or_the_scale_changes() -> None:
    hops = [
        Hop("a", 0), Hop("a", 1), Hop("b", 2), Hop("b", 3, 0.5), Hop("b", 4), Hop("b", 4),
        Hop("b", 3),
    ]  # fmt: skip
    assert stretches_of(hops) == (
        Stretch(model="a", layers=(0, 2)),
        Stretch(model="b", layers=(2, 3)),
        Stretch(model="b", layers=(3, 5), scale=0.5),
        Stretch(model="b", layers=(4, 5)),
        Stretch(model="b", layers=(3, 4)),
    )


@given(HOPS)
def test_stretches_say_what_the_hops_say(hops: list[Hop]) -> None:
    stretches = stretches_of(hops)
    assert hops_of(a_recipe(*stretches)) == tuple(hops)
    assert stretches_of(hops_of(a_recipe(*stretches))) == stretches
    assert hops_of(read_recipe(a_recipe(*stretches).to_yaml(), where="test.yaml")) == tuple(hops)


def test_layers_that_a_model_does_not_have_are_refused() -> None:
    recipe = a_recipe(Stretch(model="a", layers=(0, 4)), Stretch(model="b", layers=(2, 4)))
    structures = {"a": a_model(Stack("h.", 4)), "b": a_model(Stack("h.", 3))}
    with pytest.raises(RecipeError) as caught:
        check_route(recipe, structures)
    assert str(caught.value) == ("route.1.layers: [2, 4] is beyond the 3 layers of b; end it at 3")
    check_route(recipe, {**structures, "b": a_model(Stack("h.", 4))})


def test_a_model_of_several_runs_of_layers_is_refused() -> None:
    two = a_model(Stack("decoder.block.", 3), Stack("encoder.block.", 3))
    with pytest.raises(RecipeError) as caught:
        check_route(a_recipe(Stretch(model="a", layers=(0, 3))), {"a": two})
    assert str(caught.value) == (
        "route.0.model: a has several stacks of layers (decoder.block, encoder.block), and a "
        "route needs one; name models with one stack"
    )


def test_parameters_beside_a_route_are_refused() -> None:
    recipe = a_recipe(Stretch(model="a", layers=(0, 3)), parameters={"scale": 0.5})
    with pytest.raises(RecipeError) as caught:
        check_route(recipe, {"a": a_model(Stack("h.", 3))})
    assert str(caught.value) == (
        "parameters.scale: a route has no parameters; give a stretch its `scale`"
    )

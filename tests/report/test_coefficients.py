from __future__ import annotations

import pytest

from evomerge.recipe import Condition, Recipe, RecipeModel
from evomerge.report.coefficients import coefficients_of
from evomerge.sources import Stack, Structure
from evomerge.space.parameters.components import Components
from tests.report.studies import BASE, SOURCES, layered, make_structure, merge_of

FIRST, SECOND = SOURCES
STRUCTURE = make_structure(depth=5)


def test_a_gradient_is_spread_over_the_layers() -> None:
    found = coefficients_of(merge_of({FIRST: (0.0, 1.0), SECOND: 0.5}), STRUCTURE)
    (panel,) = found.panels
    assert (panel.parameter, panel.component) == ("weight", "all parts of a layer")
    assert panel.curves[0].model == FIRST
    assert panel.curves[0].values == pytest.approx((0.0, 0.25, 0.5, 0.75, 1.0))
    assert panel.curves[0].varies
    assert panel.curves[1].values == (0.5,) * 5
    assert not panel.curves[1].varies


def test_components_are_told_apart_where_their_values_differ() -> None:
    found = coefficients_of(layered(1), STRUCTURE)
    assert [panel.component for panel in found.panels] == ["attention", "MLP", "norms"]
    settings = layered(1).models[0].parameters["weight"]
    assert isinstance(settings, tuple)
    attention = settings[0]
    assert isinstance(attention, Condition)
    assert isinstance(attention.value, tuple)
    assert found.panels[0].curves[0].values[0] == attention.value[0]
    assert found.panels[0].curves[0].values[-1] == attention.value[-1]


@pytest.mark.parametrize(
    ("module", "component", "called"),
    [
        ("mixer", "attention", "attention"),
        ("mamba", "attention", "attention"),
        ("temporal_block", "attention", "attention"),
        ("self_attn", "attention", "attention"),
        ("fc1", "mlp", "MLP"),
        ("block_sparse_moe", "mlp", "MLP"),
        ("norm", "rest", "norms"),
        ("router", "rest", "router"),
    ],
)
def test_a_part_of_a_layer_is_called_what_a_search_space_takes_it_for(
    module: str, component: str, called: str
) -> None:
    names = [f"backbone.layers.{i}.{part}.weight" for i in range(2) for part in (module, "other")]
    structure = Structure(
        architecture="MambaForCausalLM",
        stacks=(Stack("backbone.layers.", 2),),
        shapes=dict.fromkeys(names, (8, 8)),
        dtype="float32",
        tied=False,
    )
    assert Components(structure).of[names[0]] == component
    conditions = (Condition(filter=f".{module}.", value=0.9), Condition(filter=None, value=0.1))
    found = coefficients_of(merge_of({FIRST: conditions}), structure)
    assert {panel.curves[0].values[0]: panel.component for panel in found.panels} == {
        0.9: called,
        0.1: "other",
    }


def test_parts_that_are_no_whole_component_are_named() -> None:
    conditions = (Condition(filter="down_proj", value=0.9), Condition(filter=None, value=0.1))
    found = coefficients_of(merge_of({FIRST: conditions}), STRUCTURE)
    names = {panel.component: panel.curves[0].values[0] for panel in found.panels}
    assert names["mlp.down_proj"] == 0.9
    assert len(names) == 2


def test_tensors_outside_the_layers_are_listed_with_the_value_at_depth_0() -> None:
    found = coefficients_of(merge_of({FIRST: (0.2, 1.0), SECOND: 0.5}), STRUCTURE)
    (outer,) = found.outer
    assert outer.tensors == ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    assert outer.models == (FIRST, SECOND)
    assert outer.values == (0.2, 0.5)


def test_what_is_one_for_the_whole_merge_is_no_curve() -> None:
    found = coefficients_of(merge_of({FIRST: 0.5}), STRUCTURE)
    assert dict(found.fixed) == {"lambda": "1", "normalize": "false"}
    assert {panel.parameter for panel in found.panels} == {"weight"}


def test_a_parameter_of_the_recipe_varies_without_a_model() -> None:
    recipe = Recipe(
        merge_method="slerp",
        base_model=FIRST,
        models=(RecipeModel(model=FIRST), RecipeModel(model=SECOND)),
        parameters={"t": (0.0, 0.5)},
    )
    (panel,) = coefficients_of(recipe, STRUCTURE).panels
    assert [curve.model for curve in panel.curves] == [None]
    assert panel.curves[0].values[-1] == 0.5


def test_a_value_of_the_recipe_holds_for_models_that_give_none() -> None:
    recipe = Recipe(
        merge_method="ties",
        base_model=BASE,
        models=(RecipeModel(model=FIRST, parameters={"density": 0.3}), RecipeModel(model=SECOND)),
        parameters={"density": 0.7},
    )
    (panel,) = coefficients_of(recipe, STRUCTURE).panels
    assert {curve.model: curve.values[0] for curve in panel.curves} == {FIRST: 0.3, SECOND: 0.7}


def test_a_model_on_its_own_has_no_coefficients() -> None:
    recipe = Recipe(merge_method="linear", models=(RecipeModel(model=BASE),))
    found = coefficients_of(recipe, STRUCTURE)
    assert (found.panels, found.outer, found.fixed) == ((), (), ())


def test_one_layer_alone_is_at_the_end_of_a_gradient() -> None:
    (panel,) = coefficients_of(merge_of({FIRST: (0.0, 1.0)}), make_structure(depth=1)).panels
    assert panel.curves[0].values == (1.0,)

"""Every merge method of the registry can be searched, or is refused with the reason."""

import numpy as np
import pytest

from evomerge.errors import JobError
from evomerge.merge.methods.registry import METHODS
from evomerge.merge.plan.plan import check_recipe
from evomerge.recipe import Recipe, RecipeModel
from evomerge.space.parameters.methods import rule_of
from tests.space.building import BASE, ONE, TWO, build
from tests.space.structures import llama

RANGE = {"low": 0.0, "high": 1.0}
SEARCHABLE = [name for name in METHODS if rule_of(name).searchable]


def everything(method: str) -> dict:
    """A space that searches all that can be, in the method's own ranges."""
    parameters = {
        name: {} for name, rule in rule_of(method).parameters.items() if rule.search is not None
    }
    return {"method": method, "layers": "each", "parameters": parameters}


def sources_for(method: str) -> tuple[str, ...]:
    return (ONE,) if rule_of(method).most == 1 else (ONE, TWO)


@pytest.mark.parametrize("method", SEARCHABLE)
def test_every_searchable_parameter_has_genes_in_the_methods_range(method):
    sources = sources_for(method)
    space = build(everything(method), sources=sources, statistics="calibrated")
    for name, spec in METHODS[method].parameters.items():
        genes = [gene for gene in space.genes if gene.parameter == name]
        assert bool(genes) == (spec.search is not None)
        assert {(gene.low, gene.high) for gene in genes} <= {spec.search}
    for genome in (space.start, np.random.default_rng(0).random(len(space.genes))):
        recipe = space.decode(genome)
        check_recipe(recipe, dict.fromkeys((BASE, ONE, TWO), llama()))
        np.testing.assert_allclose(space.encode(recipe), genome, atol=1e-6)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in SEARCHABLE])
def test_a_method_without_anything_to_search_is_refused(method):
    message = f"search_space.method: {method} has no parameter to search; write it as a recipe"
    with pytest.raises(JobError, match=message):
        build({"method": method, "parameters": {"weight": RANGE}})


def test_the_methods_without_anything_to_search_are_those_that_decide_themselves():
    assert set(METHODS) - set(SEARCHABLE) == {"karcher", "model_stock", "arcee_fusion", "ram"}


@pytest.mark.parametrize(
    ("method", "parameter"),
    [("multislerp", "eps"), ("ramplus_tl", "epsilon"), ("sce", "int8_mask")],
)
def test_parameters_that_are_no_matter_of_taste_are_not_searched(method, parameter):
    document = everything(method)
    document["parameters"][parameter] = RANGE
    with pytest.raises(JobError, match=f"parameters.{parameter}: "):
        build(document)


@pytest.mark.parametrize(
    ("method", "sources", "message"),
    [
        ("nuslerp", ("a", "b", "c"), "nuslerp takes 2 sources, the job has 3"),
        ("nuslerp", ("a",), "nuslerp over one source is that source; name two sources"),
        ("passthrough", ("a", "b"), "passthrough takes 1 sources, the job has 2"),
        ("nearswap", ("a", "b", "c"), "nearswap merges two models, the job has 3 sources"),
        ("fisher", ("a",), "fisher over one source is that source; add include_base: true"),
    ],
)
def test_a_number_of_sources_that_a_method_does_not_take_is_refused(method, sources, message):
    with pytest.raises(JobError, match=message):
        build(everything(method), sources=sources, statistics="calibrated")


@pytest.mark.parametrize("method", ["ties", "sce", "tsv"])
def test_one_source_is_enough_beside_a_base(method):
    assert build(everything(method), sources=(ONE,)).genes


@pytest.mark.parametrize("method", ["slerp", "nuslerp", "multislerp", "fisher", "ties", "sce"])
def test_an_average_of_two_is_not_found_where_it_is_none(method):
    space = build(everything(method), statistics="calibrated")
    soup = Recipe(
        merge_method="linear",
        models=tuple(RecipeModel(model=m, parameters={"weight": 1.0}) for m in (ONE, TWO)),
    )
    assert space.encode(soup) is None


@pytest.mark.parametrize("method", ["nuslerp", "multislerp"])
def test_methods_on_the_sphere_may_work_from_the_base(method):
    space = build({**everything(method), "include_base": True})
    recipe = space.decode(space.start)
    assert recipe.base_model == BASE
    assert [entry.model for entry in recipe.models] == [ONE, TWO]
    without = build(everything(method))
    assert without.decode(without.start).base_model is None
    assert without.encode(recipe) is None


@pytest.mark.parametrize("method", ["linear", "fisher", "regmean"])
def test_averages_may_weigh_the_base(method):
    space = build({**everything(method), "include_base": True}, statistics="calibrated")
    recipe = space.decode(space.start)
    assert recipe.base_model is None
    assert [entry.model for entry in recipe.models] == [BASE, ONE, TWO]


@pytest.mark.parametrize("method", ["fisher", "regmean", "gradient_matching"])
def test_recipes_of_methods_with_statistics_name_their_folder(method):
    space = build(everything(method), statistics="calibrated")
    recipe = space.decode(space.start)
    assert recipe.evomerge == {"statistics": "calibrated"}
    assert space.encode(recipe) is not None
    other = recipe.model_copy(update={"evomerge": {"statistics": "other"}})
    assert space.encode(other) is None
    with pytest.raises(JobError, match=r"models\.statistics: missing; .* needs the folder"):
        build(everything(method))


def test_recipes_of_other_methods_name_no_statistics():
    space = build(everything("task_arithmetic"), statistics="calibrated")
    assert space.decode(space.start).evomerge == {}


@pytest.mark.parametrize("method", SEARCHABLE)
@pytest.mark.parametrize("model", [ONE, TWO])
def test_a_single_model_is_found_where_weights_can_give_it(method, model):
    document = everything(method)
    if "weight" in document["parameters"]:
        document["parameters"]["weight"] = {"low": 0.0, "high": 1.5}
    if "scale" in document["parameters"]:
        return
    space = build(document, statistics="calibrated")
    alone = Recipe(
        merge_method="linear", models=(RecipeModel(model=model, parameters={"weight": 1}),)
    )
    found = space.encode(alone)
    assert (found is not None) == (rule_of(method).sums != "none")
    if found is not None and "weight" in document["parameters"]:
        recipe = space.decode(found)
        for entry in recipe.models:
            weight = recipe.setting_of(
                "weight", model=entry.model, tensor_name="model.norm.weight", depth=0.0
            )
            assert weight == pytest.approx(float(entry.model == model), abs=1e-9)


def test_no_rescaling_may_be_written_in_two_ways():
    document = {"method": "dare_ties", "parameters": {"weight": RANGE, "density": {}}}
    space = build({**document, "parameters": {**document["parameters"], "rescale": False}})
    recipe = space.decode(space.start)
    written = recipe.model_copy(update={"parameters": {**recipe.parameters, "rescale": "none"}})
    np.testing.assert_allclose(space.encode(written), space.start, atol=1e-9)

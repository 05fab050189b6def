import numpy as np
import pytest
from hypothesis import given, settings

from evomerge.recipe import Recipe, RecipeModel
from evomerge.space import build_space
from tests.space.building import BASE, METHODS, ONE, TWO, build, depth_of, spaces
from tests.space.structures import hybrid, llama

# Least squares and one inversion of the scale, on numbers of order one.
EXACT = 1e-9

ARITHMETIC = {
    "method": "task_arithmetic",
    "layers": "each",
    "parameters": {"weight": {"low": 0.0, "high": 1.5, "start": 0.5}},
}
SIGNS = {
    "method": "dare_ties",
    "parameters": {"weight": {"low": 0.0, "high": 1.5}, "density": {"low": 0.1, "high": 1.0}},
}


def soup(*weights, models=(ONE, TWO), normalize=True, base=None) -> Recipe:
    return Recipe(
        merge_method="linear",
        base_model=base,
        models=tuple(
            RecipeModel(model=model, parameters={"weight": weight})
            for model, weight in zip(models, weights, strict=True)
        ),
        parameters={"normalize": normalize},
    )


def task_vectors(method="task_arithmetic", weights=(0.4, 0.4), seed=7, **parameters) -> Recipe:
    own = {name: parameters.pop(name) for name in ("density",) if name in parameters}
    return Recipe(
        merge_method=method,
        base_model=BASE,
        models=tuple(
            RecipeModel(model=model, parameters={"weight": weight, **own})
            for model, weight in zip((ONE, TWO), weights, strict=True)
        ),
        parameters=parameters,
        evomerge={"seed": seed},
    )


def shares(recipe: Recipe, tensor: str) -> dict[str, float]:
    """A tensor as a weighted sum of models, by the methods' definitions."""
    depth = depth_of(llama(), tensor)
    weights = {
        entry.model: float(
            recipe.setting_of("weight", model=entry.model, tensor_name=tensor, depth=depth)
        )
        for entry in recipe.models
    }
    if recipe.merge_method == "linear":
        total = sum(weights.values()) if recipe.parameters.get("normalize", True) else 1.0
        return {BASE: 0.0, ONE: 0.0, TWO: 0.0} | {m: w / total for m, w in weights.items()}
    scale = recipe.setting_of("lambda", model=None, tensor_name=tensor, depth=depth)
    scale = 1.0 if scale is None else float(scale)
    if recipe.parameters.get("normalize", recipe.merge_method == "ties"):
        scale /= sum(weights.values()) or 1.0
    found = {model: scale * weight for model, weight in weights.items()}
    return {**found, BASE: 1.0 - sum(found.values())}


@settings(max_examples=100, deadline=None)
@given(spaces())
def test_encoding_inverts_decoding(case):
    structure, space, genome, _ = case
    recipe = space.decode(genome)
    found = space.encode(recipe)
    assert found is not None
    assert ((found >= 0.0) & (found <= 1.0)).all()
    again = space.decode(found)
    for entry in recipe.models:
        for parameter in METHODS[recipe.merge_method]:
            for tensor in structure.shapes:
                values = [
                    float(
                        one.setting_of(
                            parameter,
                            model=entry.model,
                            tensor_name=tensor,
                            depth=depth_of(structure, tensor),
                        )
                    )
                    for one in (recipe, again)
                ]
                assert abs(values[0] - values[1]) <= EXACT
    if structure.architecture != "HybridForCausalLM":  # its few attention layers leave knots free
        assert np.abs(found - genome).max() <= 1e-6


@pytest.mark.parametrize(
    "recipe",
    [
        soup(1.0, 1.0),
        soup(2.0, 1.0),
        soup(0.3, 0.7, normalize=False),
        soup(0.2, 0.3, 0.5, models=(BASE, ONE, TWO)),
        soup(1.0, models=(ONE,)),
        soup(1.0, models=(TWO,)),
        soup(1.0, models=(BASE,)),
        soup((0.0, 1.0, 0.5), 0.25),
        task_vectors(),
        task_vectors(weights=(1.0, 0.0)),
        task_vectors(weights=(2.0, 3.0), **{"lambda": 0.25}),
        task_vectors(weights=(1.0, 3.0), normalize=True),
        task_vectors("dare_linear", density=1.0),
    ],
    ids=str,
)
def test_weighted_sums_are_task_arithmetic(recipe):
    space = build(ARITHMETIC)
    found = space.encode(recipe)
    assert found is not None
    again = space.decode(found)
    for tensor in llama().shapes:
        before, after = shares(recipe, tensor), shares(again, tensor)
        assert all(abs(before[model] - after[model]) <= EXACT for model in before)


def test_shares_are_divided_by_the_lambda_of_the_space():
    range_ = {"low": 0.0, "high": 2.0}
    fixed = build({"method": "task_arithmetic", "parameters": {"weight": range_, "lambda": 0.5}})
    assert fixed.encode(soup(0.75, 0.25)) == pytest.approx([0.75, 0.25], abs=EXACT)
    searched = build(
        {
            "method": "task_arithmetic",
            "parameters": {"weight": range_, "lambda": {"low": 0.25, "high": 0.5}},
        }
    )
    # Lambda as near to 1 as the range allows: 0.5, its upper end.
    assert searched.encode(soup(0.75, 0.25)) == pytest.approx([0.75, 0.25, 1.0], abs=EXACT)
    nothing = build({"method": "task_arithmetic", "parameters": {"weight": range_, "lambda": 0.0}})
    assert nothing.encode(soup(0.75, 0.25)) is None


@pytest.mark.parametrize("model", [ONE, TWO, BASE])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_single_model_is_a_sign_election_without_rivals(model, normalize):
    document = {**SIGNS, "parameters": {**SIGNS["parameters"], "normalize": normalize}}
    space = build(document)
    found = space.encode(soup(1.0, models=(model,)))
    assert found is not None
    recipe = space.decode(found)
    weights = [entry.parameters["weight"] for entry in recipe.models]
    assert weights == pytest.approx([float(one == model) for one in (ONE, TWO)], abs=EXACT)
    for entry in recipe.models:
        if entry.model == model:
            assert entry.parameters["density"] == 1.0
        else:
            assert entry.parameters["density"] == 0.55  # at the start: weight 0 uses none of it


@pytest.mark.parametrize("low", [0.0, -0.5, -0.3, -0.49, -0.16])
@pytest.mark.parametrize("model", [ONE, BASE])
@pytest.mark.parametrize("layers", ["each", {"knots": 4}], ids=str)
def test_a_weight_that_must_be_zero_is_so_to_the_last_bit_in_normalised_elections(
    low, model, layers
):
    """A weight of 1e-17 alone would count in full: TIES divides by the weights that agree."""
    space = build(
        {
            "method": "ties",
            "layers": layers,
            "components": ["attention", "mlp", "rest"],
            "parameters": {"weight": {"low": low, "high": 1.3, "start": 0.4}, "density": 1.0},
        },
        llama(7),
    )
    found = space.encode(soup(1.0, models=(model,)))
    assert found is not None
    recipe = space.decode(found)
    for other in {ONE, TWO} - {model}:
        for tensor in llama(7).shapes:
            depth = depth_of(llama(7), tensor)
            assert recipe.setting_of("weight", model=other, tensor_name=tensor, depth=depth) == 0.0


@pytest.mark.parametrize("depth", [7, 23])
def test_a_zero_that_gradients_round_is_not_taken_for_one(depth):
    """Layer by layer from another model. Of 23 layers, 15/22 * 22 is not 15, and the gradient
    there has a breath of layer 14: harmless in a sum, a whole task vector in an election."""
    weights = tuple(float(layer % 2) for layer in range(depth))
    others = tuple(1.0 - weight for weight in weights)
    document = {"layers": "each", "parameters": {"weight": {"low": 0.0, "high": 1.0}}}
    recipe = soup(weights, others)
    assert build({**document, "method": "dare_ties"}, llama(depth)).encode(recipe) is not None
    found = build({**document, "method": "ties"}, llama(depth)).encode(recipe)
    assert (found is None) == (depth == 23)


@pytest.mark.parametrize(("model", "t"), [(ONE, 0.0), (TWO, 1.0)])
def test_a_single_model_is_an_end_of_the_arc(model, t):
    space = build(
        {"method": "slerp", "layers": {"knots": 3}, "parameters": {"t": {"low": 0, "high": 1}}}
    )
    found = space.encode(soup(1.0, models=(model,)))
    assert found is not None
    np.testing.assert_allclose(found, t, atol=EXACT)


def test_averages_are_read_as_weights_that_add_up_to_one():
    space = build({"method": "linear", "parameters": {"weight": {"low": 0.0, "high": 1.0}}})
    assert space.encode(soup(3.0, 1.0)) == pytest.approx([0.75, 0.25], abs=EXACT)
    assert space.encode(soup(0.9, 0.3)) == pytest.approx([0.9, 0.3], abs=EXACT)  # as written
    assert space.encode(task_vectors(weights=(0.8, 0.2))) == pytest.approx([0.8, 0.2], abs=EXACT)
    assert space.encode(task_vectors(weights=(0.8, 0.1))) is None  # a tenth of the base is left
    with_base = build(
        {"method": "linear", "include_base": True, "parameters": {"weight": {"low": 0, "high": 1}}}
    )
    assert with_base.encode(task_vectors(weights=(0.8, 0.1))) == pytest.approx(
        [0.1, 0.8, 0.1], abs=EXACT
    )


@pytest.mark.parametrize(
    ("document", "recipe"),
    [
        pytest.param(ARITHMETIC, task_vectors("ties", density=0.2), id="ties drops elements"),
        pytest.param(
            ARITHMETIC, task_vectors("dare_linear", density=0.5), id="dare drops elements"
        ),
        pytest.param(ARITHMETIC, task_vectors(weights=(1.6, 0.0)), id="above the range"),
        pytest.param(ARITHMETIC, task_vectors(weights=(-0.1, 0.0)), id="below the range"),
        pytest.param(ARITHMETIC, soup(1.0, 1.0, models=(ONE, "models/other")), id="other model"),
        pytest.param(ARITHMETIC, soup(0.5, 0.4, normalize=False), id="not an average"),
        pytest.param(SIGNS, soup(1.0, 1.0), id="average by election"),
        pytest.param(SIGNS, task_vectors("dare_ties", density=0.05), id="density below the range"),
        pytest.param(SIGNS, task_vectors("dare_ties", density=0.5, seed=8), id="other masks"),
        pytest.param(SIGNS, task_vectors("dare_ties", density=0.5, rescale=False), id="rescale"),
        pytest.param(SIGNS, task_vectors("dare_ties", density=0.5, normalize=True), id="normalize"),
        pytest.param(SIGNS, task_vectors("dare_ties", density=0.5, **{"lambda": 2.0}), id="lambda"),
        pytest.param(
            SIGNS,
            task_vectors("dare_ties", weights=((0.1, 0.9), 1.0), density=0.5),
            id="varies over depth",
        ),
    ],
)
def test_what_a_space_cannot_express_is_none(document, recipe):
    assert build(document).encode(recipe) is None


def test_masks_do_not_matter_where_nothing_is_dropped():
    recipe = task_vectors("dare_ties", weights=(0.5, 0.25), density=1.0, seed=8, rescale=False)
    assert build(SIGNS).encode(recipe) is not None


def test_a_recipe_of_more_detail_than_the_genes_is_none():
    whole = build({**ARITHMETIC, "layers": "all"})
    fine = build(ARITHMETIC)
    genome = fine.start.copy()
    assert whole.encode(fine.decode(genome)) is not None
    genome[2] += 0.01
    assert whole.encode(fine.decode(genome)) is None


def test_a_finer_space_holds_every_recipe_of_a_coarser_one():
    coarse = build(
        {**ARITHMETIC, "layers": {"knots": 3}, "components": ["attention", "mlp", "rest"]}
    )
    fine = build({**ARITHMETIC, "components": ["attention", "mlp", "rest"]})
    genome = np.random.default_rng(0).random(len(coarse.genes))
    found = fine.encode(coarse.decode(genome))
    assert found is not None
    np.testing.assert_allclose(coarse.encode(fine.decode(found)), genome, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_knots_that_few_layers_bind_are_found_inside_the_box(seed):
    """Attention in two of six layers: three knots reach them, and many values do the same."""
    space = build(
        {
            "method": "task_arithmetic",
            "layers": {"knots": 5},
            "components": ["attention", "mlp", "rest"],
            "parameters": {"weight": {"low": 0.0, "high": 1.0, "start": 0.0}},
        },
        hybrid(6),
    )
    genome = np.random.default_rng(seed).choice([0.0, 0.5, 1.0], len(space.genes))
    recipe = space.decode(genome)
    found = space.encode(recipe)
    assert found is not None
    again = space.decode(found)
    for tensor in hybrid(6).shapes:
        one, other = (
            each.setting_of(
                "weight", model=ONE, tensor_name=tensor, depth=depth_of(hybrid(6), tensor)
            )
            for each in (recipe, again)
        )
        assert abs(one - other) <= 2 * EXACT


def test_local_folders_may_be_written_in_several_ways(tmp_path, monkeypatch):
    for name in ("base", "one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    space = build_space(
        {"method": "task_arithmetic", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
        base=str(tmp_path / "base"),
        sources=(str(tmp_path / "one"), str(tmp_path / "two")),
        structure=llama(),
        out_dtype="bfloat16",
        seed=0,
    )
    recipe = Recipe(
        merge_method="task_arithmetic",
        base_model="./base",
        models=(
            RecipeModel(model="one", parameters={"weight": 0.25}),
            RecipeModel(model="./two/", parameters={"weight": 0.75}),
        ),
    )
    assert space.encode(recipe) == pytest.approx([0.25, 0.75], abs=EXACT)

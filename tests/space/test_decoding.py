import numpy as np
import pytest
from hypothesis import given, settings

from evomerge.errors import JobError
from evomerge.sources import Structure
from tests.space.building import BASE, ONE, PER_MODEL, TWO, build, depth_of, spaces
from tests.space.structures import clashing, hybrid, llama

# A gradient is evaluated at i/(L-1), which is rounded; values here are of order one.
ROUNDING = 1e-12


def is_for(gene, structure: Structure, tensor: str, components: tuple[str, ...]) -> bool:
    """By the words of the design alone: does this gene reach this tensor?"""
    layer = structure.layer_of(tensor)
    if layer is None:
        inside = "outer"
    elif ".self_attn." in tensor or ".attn." in tensor:
        inside = "attention"
    elif any(part in tensor for part in (".mlp.", ".fc1.", ".fc2.")):
        inside = "mlp"
    else:
        inside = "rest"
    if gene.component == "outer":
        return inside == "outer"
    if inside == "outer":
        whole = gene.layers == (0, structure.depth - 1)
        return whole and gene.component in ("all", "rest")
    return gene.component in ("all", inside)


def expected(space, genome, parameter, source, structure, tensor, grain) -> float:
    """The value meant for a tensor, computed from the genes without any of the space's matrices."""
    layer = structure.layer_of(tensor)
    own = [
        (gene, gene.value(position))
        for gene, position in zip(space.genes, genome, strict=True)
        if gene.parameter == parameter and gene.source in (None, source)
    ]
    reached = [(gene, value) for gene, value in own if is_for(gene, structure, tensor, ())]
    has_outer = any(gene.component == "outer" for gene, _ in own)
    if layer is None:
        reached = [pair for pair in reached if not has_outer or pair[0].component == "outer"]
        assert len(reached) == 1
        return reached[0][1]
    if grain == "knots":
        positions = [gene.layers[0] for gene, _ in reached]
        return float(np.interp(layer, positions, [value for _, value in reached]))
    inside = [value for gene, value in reached if gene.layers[0] <= layer <= gene.layers[1]]
    assert len(inside) == 1
    return inside[0]


@settings(max_examples=150, deadline=None)
@given(spaces())
def test_every_tensor_gets_exactly_the_value_of_its_gene(case):
    structure, space, genome, grains = case
    recipe = space.decode(genome)
    for parameter, grain in grains.items():
        scope = [ONE, TWO] if parameter in PER_MODEL else [None]
        for source in scope:
            for tensor in structure.shapes:
                got = recipe.setting_of(
                    parameter, model=source, tensor_name=tensor, depth=depth_of(structure, tensor)
                )
                meant = expected(space, genome, parameter, source, structure, tensor, grain)
                assert abs(float(got) - meant) <= ROUNDING


def test_the_ends_of_the_box_are_the_ends_of_every_range():
    document = {
        "method": "dare_ties",
        "parameters": {
            "weight": {"low": -0.3, "high": 1.7},
            "density": {"low": 0.07, "high": 1.0, "scale": "log"},
        },
    }
    space = build(document)
    low, high = space.decode(np.zeros(4)), space.decode(np.ones(4))
    assert low.models[0].parameters == {"weight": -0.3, "density": 0.07}
    assert high.models[1].parameters == {"weight": 1.7, "density": 1.0}


def test_a_log_scale_puts_the_geometric_mean_in_the_middle():
    space = build(
        {
            "method": "ties",
            "parameters": {"weight": 1.0, "density": {"low": 0.01, "high": 1.0, "scale": "log"}},
        }
    )
    assert space.decode(np.full(2, 0.5)).models[0].parameters["density"] == pytest.approx(0.1)
    assert space.start.tolist() == [0.5, 0.5]  # the middle, unless a start is given


def test_different_genomes_are_different_recipes():
    space = build(
        {
            "method": "task_arithmetic",
            "layers": "each",
            "parameters": {"weight": {"low": -1.0, "high": 1.0}},
        }
    )
    generator = np.random.default_rng(0)
    seen = {space.decode(generator.random(len(space.genes))).to_yaml() for _ in range(50)}
    genome = np.full(len(space.genes), 0.25)
    for index in range(len(space.genes)):
        moved = genome.copy()
        moved[index] += 1e-12
        seen.add(space.decode(moved).to_yaml())
    assert len(seen) == 50 + len(space.genes)


def test_recipes_say_dtype_mask_seed_and_what_is_fixed():
    space = build(
        {
            "method": "dare_ties",
            "parameters": {
                "weight": {"low": 0.0, "high": 1.0},
                "density": 0.5,
                "lambda": 1.2,
                "rescale": "density",
                "normalize": True,
            },
        }
    )
    recipe = space.decode(np.array([0.25, 0.75]))
    assert (recipe.merge_method, recipe.base_model) == ("dare_ties", BASE)
    assert (recipe.dtype, recipe.out_dtype, recipe.seed) == ("float32", "bfloat16", 7)
    assert recipe.evomerge == {"seed": 7}
    assert [entry.model for entry in recipe.models] == [ONE, TWO]
    assert recipe.models[0].parameters == {"weight": 0.25, "density": 0.5}
    assert recipe.parameters == {"lambda": 1.2, "rescale": "density", "normalize": True}


def test_only_dare_carries_a_seed():
    space = build({"method": "ties", "parameters": {"weight": {"low": 0, "high": 1}}})
    assert space.decode(space.start).evomerge == {}


def test_slerp_goes_from_the_first_source_to_the_second():
    recipe = build({"method": "slerp", "parameters": {"t": {"low": 0, "high": 1}}}).decode(
        np.array([0.25])
    )
    assert recipe.base_model == ONE
    assert [entry.model for entry in recipe.models] == [ONE, TWO]
    assert recipe.parameters == {"t": 0.25}


def test_slerp_of_one_source_goes_from_the_base():
    space = build({"method": "slerp", "parameters": {"t": {"low": 0, "high": 1}}}, sources=(ONE,))
    recipe = space.decode(np.array([0.25]))
    assert (recipe.base_model, [entry.model for entry in recipe.models]) == (BASE, [BASE, ONE])


def test_linear_weighs_the_base_only_when_asked():
    plain = {"method": "linear", "parameters": {"weight": {"low": 0, "high": 1}}}
    with_base = {**plain, "include_base": True}
    assert build(plain).decode(np.array([0.2, 0.4])).references == (ONE, TWO)
    assert build(with_base).decode(np.array([0.1, 0.2, 0.4])).references == (BASE, ONE, TWO)
    assert build(plain).decode(np.array([0.2, 0.4])).base_model is None


def test_components_that_are_not_listed_keep_their_value():
    space = build(
        {
            "method": "task_arithmetic",
            "layers": "each",
            "components": ["mlp"],
            "parameters": {"weight": {"low": 0.0, "high": 1.0, "elsewhere": 0.125}},
        }
    )
    assert len(space.genes) == 2 * 4
    recipe = space.decode(np.linspace(0.2, 0.9, 8))
    structure = llama()
    for tensor in structure.shapes:
        got = recipe.setting_of(
            "weight", model=TWO, tensor_name=tensor, depth=depth_of(structure, tensor)
        )
        assert (got == 0.125) == (".mlp." not in tensor)


def test_layers_without_a_component_have_no_gene_for_it():
    space = build(
        {
            "method": "task_arithmetic",
            "layers": "each",
            "components": ["attention", "mlp", "rest"],
            "parameters": {"weight": {"low": 0.0, "high": 1.0, "per": "all"}},
        },
        hybrid(6),
    )
    attention = [gene.layers for gene in space.genes if gene.component == "attention"]
    assert attention == [(0, 0), (3, 3)]
    assert len(space.genes) == 2 + 6 + 6 + 1


def test_a_filter_that_would_catch_another_tensor_is_refused():
    with pytest.raises(JobError, match=r"also catches layers\.1\.self_attn\.norm\.weight"):
        build(
            {
                "method": "task_arithmetic",
                "layers": "each",
                "components": ["attention", "mlp", "rest"],
                "parameters": {"weight": {"low": 0.0, "high": 1.0}},
            },
            clashing(),
        )


def test_genes_have_readable_names_and_say_where_they_are():
    space = build(
        {
            "method": "dare_ties",
            "layers": {"groups_of": 3},
            "components": ["attention", "mlp", "rest"],
            "parameters": {
                "weight": {"low": 0.0, "high": 1.5, "start": 0.4},
                "density": {"low": 0.1, "high": 1.0, "layers": {"knots": 3}, "components": "all"},
                "lambda": {"low": 0.5, "high": 1.5, "layers": "all", "components": "all"},
            },
        }
    )
    genes = {gene.name: gene for gene in space.genes}
    first = genes["weight.arithmetic.attention.L00-L02"]
    assert (first.parameter, first.source, first.component) == ("weight", ONE, "attention")
    assert (first.layers, first.low, first.high, first.start) == ((0, 2), 0.0, 1.5, 0.4)
    assert genes["weight.japanese.rest.L03"].layers == (3, 3)
    assert genes["weight.japanese.outer"].layers is None
    assert genes["density.japanese.knot2of3"].layers == (1.5, 1.5)
    assert (genes["lambda"].source, genes["lambda"].layers) == (None, (0, 3))


def test_sources_of_one_name_are_told_apart():
    space = build(
        {"method": "task_arithmetic", "parameters": {"weight": {"low": 0, "high": 1}}},
        sources=("a/final", "b/final@abc123"),
    )
    assert [gene.name for gene in space.genes] == ["weight.a/final", "weight.b/final"]

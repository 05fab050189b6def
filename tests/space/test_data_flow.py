import numpy as np
import pytest
from hypothesis import given, settings

from evomerge.errors import JobError
from evomerge.recipe import Recipe, RecipeModel, Stretch, read_recipe
from evomerge.route import hops_of
from evomerge.search.baselines import Baselines
from evomerge.space import build_space, read_space
from tests.space.building import BASE, ONE, TWO, build
from tests.space.routes import (
    HOP,
    NAMES,
    PAIR,
    at,
    layers_of,
    own_route,
    route_spaces,
    routes,
    through,
)
from tests.space.structures import llama

BOTH = [{"scales": HOP}, {"scales": PAIR}]


@pytest.mark.parametrize("keys", [{}, *BOTH, {"scales": {**HOP, "scale": "linear"}}], ids=str)
@pytest.mark.parametrize("repeats", [1, 3])
def test_the_start_is_exactly_the_first_source(keys, repeats):
    space = routes(4, repeats=repeats, **keys)
    recipe = space.decode(space.start)
    assert recipe.route == own_route(ONE, 4)
    assert (recipe.merge_method, recipe.out_dtype) == ("passthrough", "bfloat16")
    switches = [gene.start for gene in space.genes if gene.binary]
    assert switches == [1.0, 1.0] + [0.0] * (len(switches) - 2)
    assert space.start[: len(switches)].tolist() == switches


@pytest.mark.parametrize(("low", "high"), [(1.0, 3.0), (0.3, 1.0), (0.7, 1.1), (1e-6, 17.0)])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_scale_of_one_is_one_wherever_it_lies_in_the_range(low, high, scale):
    space = routes(scales={"per": "hop", "low": low, "high": high, "scale": scale})
    assert space.decode(space.start).route == own_route(ONE, 4)


@pytest.mark.parametrize(
    ("limits", "exclusive"),
    [({}, False), ({"max_layers": 4}, False), ({"max_layers": 3}, True), ({"min_layers": 5}, True)],
    ids=str,
)
def test_a_space_is_exclusive_where_its_limits_leave_the_first_source_out(limits, exclusive):
    assert routes(4, **limits).exclusive is exclusive


def test_a_start_beyond_the_limits_keeps_what_it_can():
    short = routes(5, max_layers=4)
    assert layers_of(short.decode(short.start)) == [(ONE, 0), (ONE, 1), (ONE, 2), (ONE, 4)]
    long = routes(3, (ONE,), repeats=2, min_layers=5)
    assert [layer for _, layer in layers_of(long.decode(long.start))] == [0, 1, 0, 1, 2]
    for space in (short, long):
        assert space.encode(space.decode(space.start)).tolist() == space.start.tolist()


def test_genes_are_named_by_pass_model_and_layer():
    space = routes(2, repeats=2, scales=HOP)
    assert [gene.name for gene in space.genes] == [
        "in.1.japanese.00",
        "in.1.japanese.01",
        "in.2.arithmetic.00",
        "in.2.arithmetic.01",
        "in.2.japanese.00",
        "in.2.japanese.01",
        "scale.1.arithmetic.00",
        "scale.1.arithmetic.01",
        "scale.1.japanese.00",
        "scale.1.japanese.01",
        "scale.2.arithmetic.00",
        "scale.2.arithmetic.01",
        "scale.2.japanese.00",
        "scale.2.japanese.01",
    ]
    first, last = space.genes[0], space.genes[-1]
    assert (first.binary, first.parameter, first.source, first.layers) == (
        True,
        "included",
        TWO,
        (0, 0),
    )
    assert (last.binary, last.parameter, last.source, last.layers) == (False, "scale", TWO, (1, 1))
    assert (last.low, last.high, last.scale, last.start) == (0.5, 2.0, "log", 1.0)


def test_pairs_are_named_by_the_layers_they_lead_from_and_to():
    space = routes(2, (ONE,), repeats=2, scales=PAIR)
    assert [gene.name for gene in space.genes[2:]] == [
        "scale.arithmetic.00->arithmetic.00",
        "scale.arithmetic.00->arithmetic.01",
        "scale.arithmetic.01->arithmetic.00",
        "scale.arithmetic.01->arithmetic.01",
    ]
    assert {gene.source for gene in space.genes[2:]} == {None}
    assert [gene.layers for gene in space.genes[2:]] == [(0, 0), (1, 1), (0, 0), (1, 1)]


def test_names_stay_apart_and_do_not_depend_on_ranges():
    sources = ("x/final", "y/final", "final.01")
    one = routes(12, sources, repeats=3, scales=PAIR, models="sources_and_base")
    other = routes(12, sources, repeats=3, scales={**PAIR, "high": 9.0}, models="sources_and_base")
    names = [gene.name for gene in one.genes]
    assert len(set(names)) == len(names) == 3 * 48 - 2 + 48 * 48
    assert names == [gene.name for gene in other.genes]


def test_layers_come_in_the_order_of_their_places_and_the_last_closes():
    space = routes(3, repeats=2)
    genome = at(space, in_1_arithmetic_01=0.0, in_1_japanese_02=0.9, in_2_arithmetic_02=0.6)
    assert layers_of(space.decode(genome)) == [(ONE, 0), (TWO, 2), (ONE, 2), (ONE, 2)]


def test_a_scale_is_that_of_its_place_to_12_digits_and_also_before_the_first_layer():
    space = routes(3, scales=HOP)
    genome = at(
        space,
        in_1_japanese_01=1.0,
        scale_1_arithmetic_00=1.0,
        scale_1_japanese_01=0.0,
        scale_1_arithmetic_02=0.75,
    )
    assert space.decode(genome).route == (
        Stretch(model=ONE, layers=(0, 2), scale=2.0),
        Stretch(model=TWO, layers=(1, 2), scale=0.5),
        Stretch(model=ONE, layers=(2, 3), scale=1.41421356237),
    )


def test_a_layer_has_a_scale_of_its_own_in_each_pass():
    space = routes(3, (ONE,), repeats=2, scales=HOP)
    genome = at(space, in_2_arithmetic_01=1.0, scale_1_arithmetic_01=1.0, scale_2_arithmetic_01=0.0)
    assert [(hop.layer, hop.scale) for hop in hops_of(space.decode(genome))] == [
        (0, 1.0),
        (1, 2.0),
        (1, 0.5),
        (2, 1.0),
    ]


def test_a_pairs_scale_comes_wherever_one_layer_follows_the_other():
    space = routes(3, (ONE,), repeats=3, scales=PAIR)
    names = [gene.name for gene in space.genes]
    genome = at(space, in_2_arithmetic_00=1.0, in_2_arithmetic_01=1.0, in_3_arithmetic_00=1.0)
    genome[names.index("scale.arithmetic.00->arithmetic.01")] = 1.0
    genome[names.index("scale.arithmetic.01->arithmetic.00")] = 0.0
    hops = hops_of(space.decode(genome))
    assert [(hop.layer, hop.scale) for hop in hops] == [
        (0, 1.0),
        (1, 2.0),
        (0, 0.5),
        (1, 2.0),
        (0, 0.5),
        (2, 1.0),
    ]


@settings(max_examples=150, deadline=None)
@given(route_spaces())
def test_encoding_inverts_decoding(case):
    _, _, space, genome = case
    recipe = space.decode(genome)
    found = space.encode(recipe)
    assert found is not None
    assert ((found >= 0.0) & (found <= 1.0)).all()
    assert space.decode(found) == recipe
    assert read_recipe(recipe.to_yaml(), where="r") == recipe


@settings(max_examples=150, deadline=None)
@given(route_spaces())
def test_every_route_goes_from_end_to_end_within_the_limits(case):
    depth, keys, space, genome = case
    layers = layers_of(space.decode(genome))
    assert (layers[0], layers[-1]) == ((NAMES[0], 0), (NAMES[0], depth - 1))
    assert keys.get("min_layers", 2) <= len(layers) <= keys.get("max_layers", len(layers))


@settings(max_examples=150, deadline=None)
@given(route_spaces())
def test_inactive_genes_have_no_effect_and_active_scales_have_one(case):
    _, keys, space, genome = case
    active = space.active(genome)
    assert active.shape == genome.shape
    binary = np.array([gene.binary for gene in space.genes])
    assert active[binary].all()
    recipe = space.decode(genome)
    if not keys["conditional"]:
        assert active.all()
        return
    other = genome.copy()
    other[~active] = 1.0 - other[~active]
    assert space.decode(other) == recipe
    for place in np.flatnonzero(active & ~binary):
        other = genome.copy()
        other[place] = (other[place] + 0.5) % 1.0
        assert space.decode(other) != recipe


def test_scales_of_layers_that_a_limit_left_out_are_inactive():
    space = routes(4, scales=HOP, max_layers=3)
    active = space.active(np.ones(len(space.genes)))
    assert [gene.name for gene, is_ in zip(space.genes, active, strict=True) if is_][6:] == [
        "scale.1.arithmetic.00",
        "scale.1.arithmetic.01",
        "scale.1.arithmetic.03",
    ]


def test_scales_of_pairs_that_do_not_meet_are_inactive():
    space = routes(3, (ONE,), scales=PAIR)
    active = space.active(space.start)
    assert [gene.name for gene, is_ in zip(space.genes, active, strict=True) if is_] == [
        "in.1.arithmetic.01",
        "scale.arithmetic.00->arithmetic.01",
        "scale.arithmetic.01->arithmetic.02",
    ]


def test_the_first_source_alone_is_the_start():
    space = routes(repeats=2, scales=HOP)
    baselines = Baselines(base=BASE, sources=(ONE, TWO), out_dtype="bfloat16", seed=0)
    found = {one.label: space.encode(one.recipe) for one in baselines.stage({})}
    assert found.pop("arithmetic").tolist() == space.start.tolist()
    assert set(found.values()) == {None}


def test_the_first_source_alone_may_be_written_in_several_ways():
    def whole(method="linear", base=None, one=None, two=None, **parameters) -> Recipe:
        models = [RecipeModel(model=ONE, parameters=one or {})]
        models += [] if two is None else [RecipeModel(model=TWO, parameters=two)]
        return Recipe(
            merge_method=method, base_model=base, models=tuple(models), parameters=parameters
        )

    space = routes()
    for recipe in (
        whole("passthrough"),
        whole(one={"weight": 0.3}),
        whole(one={"weight": 0.3}, two={"weight": 0.0}),
        whole(weight=1.0, normalize=False),
        whole(base=ONE, one={"weight": 2}),
        through(*((ONE, layer) for layer in range(4)), out_dtype="float32"),
    ):
        assert space.encode(recipe).tolist() == space.start.tolist(), recipe
    for recipe in (
        whole("passthrough", one={"scale": 2.0}),
        whole("passthrough", scale=2.0),
        whole(one={"weight": 0.3}, two={"weight": 0.1}),
        whole(one={"weight": [0.3, 1.0]}),
        whole(weight=0.5, normalize=False),
        whole(base=BASE, one={"weight": 1.0}),
        whole("slerp", base=ONE, two={}, t=0.0),
    ):
        assert space.encode(recipe) is None, recipe


def test_a_whole_model_beyond_the_limits_is_none():
    whole = through((ONE, 0), (ONE, 1), (ONE, 2), (ONE, 3))
    assert routes(max_layers=3).encode(whole) is None
    assert routes(repeats=2, min_layers=5).encode(whole) is None


def test_of_several_genomes_the_earliest_places_are_given():
    space = routes(3, repeats=3)
    later = at(space, in_1_arithmetic_01=0.0, in_3_arithmetic_01=1.0, in_3_japanese_01=1.0)
    found = space.encode(space.decode(later))
    assert found.tolist() == at(space, in_1_japanese_01=1.0).tolist()


@pytest.mark.parametrize(
    ("keys", "recipe", "reason"),
    [
        ({}, through((ONE, 0), (BASE, 1), (ONE, 3)), f"it reads {BASE}, which is not a model"),
        ({}, through((TWO, 0), (TWO, 3)), f"not lead from layer 0 to layer 3 of {ONE} in 1 passes"),
        ({}, through((ONE, 0), (ONE, 1), (ONE, 1), (ONE, 3)), "in 1 passes over the models"),
        ({"max_layers": 3}, through(*((ONE, n) for n in range(4))), "4 layers, those .* 2 to 3"),
        ({}, through((ONE, 0), (ONE, 3, 1.5)), "it scales where this space cannot, by 1.5"),
        (
            {"scales": PAIR},
            through((ONE, 0, 1.5), (ONE, 3)),
            "it scales where this space cannot, by 1.5",
        ),
        (
            {"scales": HOP},
            through((ONE, 0), (ONE, 3, 2.5)),
            r"scale\.1\.arithmetic\.03 would be 2\.5, outside \[0\.5, 2\]",
        ),
        ({"scales": HOP}, through((ONE, 0), (ONE, 3, -1.0)), "03 would be -1, outside"),
        (
            {"scales": PAIR, "repeats": 3},
            through((ONE, 0), (ONE, 1, 1.5), (ONE, 0), (ONE, 1, 1.2), (ONE, 3)),
            "00->arithmetic.01 would be 1.5 and 1.2",
        ),
        ({}, Recipe(merge_method="linear", models=({"model": TWO},)), f"nor {ONE} alone"),
        ({}, through((ONE, 0), (ONE, 3), parameters={"scale": 2.0}), "parameters beside its route"),
    ],
)
def test_what_the_space_cannot_express_is_none_and_as_a_start_refused(keys, recipe, reason):
    space = routes(4, **keys)
    assert space.encode(recipe) is None
    with pytest.raises(JobError, match=rf"^here: this space cannot express the recipe: .*{reason}"):
        space.starting_from(recipe, where="here")


def test_a_space_may_start_from_a_recipe_on_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    winner = through(("one", 0), ("two", 1, 1.25), ("one", 3))
    (tmp_path / "winner.yaml").write_text(winner.to_yaml())
    sources = (str(tmp_path / "one"), str(tmp_path / "two"))
    document = read_space({"routes": {"scales": HOP}, "start_from": "winner.yaml"})
    monkeypatch.chdir("/")  # what was read says everything
    space = build(document, sources=sources)
    assert hops_of(space.decode(space.start)) == hops_of(
        through((sources[0], 0), (sources[1], 1, 1.25), (sources[0], 3))
    )
    assert [gene.start for gene in space.genes if gene.name.startswith("scale.1.two")] == [
        1.0,
        1.25,
        1.0,
        1.0,
    ]


def test_a_recipe_of_stages_is_no_start(tmp_path):
    stage = Recipe(merge_method="passthrough", models=(RecipeModel(model=TWO),))
    winner = through((ONE, 0), ("stage", 3), stages={"stage": stage})
    (tmp_path / "winner.yaml").write_text(winner.to_yaml())
    with pytest.raises(JobError, match=r"winner\.yaml: is made of stages; name a recipe of one"):
        build({"routes": {}, "start_from": str(tmp_path / "winner.yaml")})


MERGED = Recipe(
    merge_method="linear",
    models=tuple(RecipeModel(model=model, parameters={"weight": 0.5}) for model in (ONE, TWO)),
)
OTHER = MERGED.model_copy(update={"merge_method": "ram"})


@pytest.mark.parametrize(
    "document",
    [
        {"routes": {"repeats": 2}},
        {"method": "task_arithmetic", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
    ],
    ids=["routes", "parameters"],
)
def test_recipes_of_a_space_over_stages_carry_them(document):
    space = build_space(
        document,
        base=BASE,
        sources=("merged", ONE, TWO),
        structure=llama(),
        out_dtype="bfloat16",
        seed=0,
        stages={"merged": MERGED},
    )
    recipe = space.decode(space.start)
    assert recipe.stages == {"merged": MERGED}
    assert "merged" in recipe.references
    assert space.encode(recipe).tolist() == space.start.tolist()
    assert space.encode(recipe.model_copy(update={"stages": {"merged": OTHER}})) is None
    assert space.encode(recipe.model_copy(update={"stages": {}})) is not None


def test_the_stage_alone_is_the_start_of_a_space_that_it_leads():
    space = build_space(
        "self_repetition",
        base=BASE,
        sources=("merged", ONE),
        structure=llama(),
        out_dtype="bfloat16",
        seed=0,
        stages={"merged": MERGED},
    )
    alone = Recipe(
        merge_method="linear",
        models=(RecipeModel(model="merged", parameters={"weight": 1.0}),),
        stages={"merged": MERGED},
    )
    assert space.encode(alone).tolist() == space.start.tolist()


def test_depth_up_scaling_is_a_route_of_self_repetition():
    """Kim et al. 2023: the first 24 of 32 layers, then the last 24."""
    space = build("self_repetition", llama(32), sources=(ONE,))
    solar = through(*((ONE, n) for n in range(24)), *((ONE, n) for n in range(8, 32)))
    found = space.encode(solar)
    assert space.decode(found).route == solar.route
    assert len(layers_of(solar)) == 48


def test_pruning_starts_without_the_deepest_layers_but_the_last():
    space = build("layer_pruning", llama(32), sources=(ONE,))
    assert space.decode(space.start).route == (
        Stretch(model=ONE, layers=(0, 27)),
        Stretch(model=ONE, layers=(31, 32)),
    )
    lengths = [len(layers_of(space.decode(np.full(30, value)))) for value in (0.0, 1.0)]
    assert lengths == [24, 28]


def test_the_papers_genome_of_pairs_has_as_many_genes_as_its_comment_says():
    space = routes(32, repeats=3, scales=PAIR)
    assert len(space.genes) == 4286

import re

import numpy as np
import pytest

from evomerge.errors import JobError
from evomerge.job import shipped_folder
from evomerge.recipe import Recipe, RecipeModel
from evomerge.space import build_space, read_space
from tests.space.building import BASE, ONE, TWO, build
from tests.space.structures import llama, unknown_parts

RANGE = {"low": 0.0, "high": 1.0}


def space(**keys) -> dict:
    return {"method": "task_arithmetic", "parameters": {"weight": RANGE}, **keys}


def weight(**keys) -> dict:
    return space(parameters={"weight": {**RANGE, **keys}})


def ties(**density) -> dict:
    return {"method": "ties", "parameters": {"weight": 1.0, "density": density}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (space(metod="ties"), "search_space.metod: unknown key; did you mean method?"),
        (space(method="tie"), "search_space.method: tie: no such method; did you mean ties?"),
        ({"parameters": {}}, "search_space.method: missing"),
        ({"method": "ram"}, "search_space.method: ram has no parameter to search"),
        (space(parameters={}), "search_space.parameters: missing"),
        (space(parameters=None), "search_space.parameters: missing; give weight, lambda"),
        (space(parameters={"wieght": RANGE}), "parameters.wieght: .*did you mean weight?"),
        (space(parameters={"lambda": RANGE}), "parameters.weight: missing; task_arithmetic needs"),
        (space(parameters={"weight": 0.5}), "all are fixed, so nothing is searched"),
        (space(parameters={"weight": {"low": 0.0}}), "parameters.weight.high: missing"),
        (weight(low=1.0), r"parameters.weight.high: 1.0: not above low \(1\)"),
        (
            weight(low=-1e308, high=1e308),
            r"parameters.weight.high: 1e\+308: more than 1e\+09 above",
        ),
        (weight(low=2), r"parameters.weight.high: 1.0: not above low \(2\)"),
        (weight(low="a"), "parameters.weight.low: a: give a number"),
        (weight(high=float("nan")), "parameters.weight.high: nan: give a finite number"),
        (weight(start=None), "parameters.weight.start: None: give a number"),
        (weight(high=True), "parameters.weight.high: True: give a number"),
        (weight(start=1.5), r"parameters.weight.start: 1.5: outside \[0, 1\]"),
        (weight(scale="log"), "parameters.weight.low: 0.0: has no logarithm"),
        (weight(scale="exp"), "parameters.weight.scale: exp: write 'linear' or 'log'"),
        (weight(per="model"), "parameters.weight.per: model: write 'source' or 'all'"),
        (weight(strat=0.5), "parameters.weight.strat: unknown key; did you mean start?"),
        (weight(layers="every"), "parameters.weight.layers: every: write all, each"),
        (weight(layers=None), "parameters.weight.layers: None: write all, each"),
        (space(layers={"knots": "2"}), "search_space.layers.knots: 2: not an integer"),
        (weight(layers={"knots": 1}), "parameters.weight.layers.knots: 1: below 2; give 2 or more"),
        (
            weight(layers={"knots": 5}),
            "parameters.weight.layers.knots: 5 is more than the 4 layers",
        ),
        (space(layers={"knots": 5}), "search_space.layers.knots: 5 is more than the 4 layers"),
        (space(layers={"groups_of": 0}), "layers.groups_of: 0: below 1; give 1 or more"),
        (space(layers={"groups_of": 9}), "layers.groups_of: 9 is more than the 4 layers"),
        (space(layers={"group_of": 2}), "layers.group_of: unknown key; did you mean groups_of?"),
        (space(layers={"knots": 2, "groups_of": 2}), "layers: has groups_of and knots; keep one"),
        (space(layers={"knots": 2.5}), "layers.knots: 2.5: not an integer; give a whole number"),
        (
            space(components=["attn"]),
            "components.0: attn: write 'attention', 'mlp' or 'rest'",
        ),
        (space(components=["mlp", "mlp"]), "components: mlp is listed twice"),
        (space(components="each"), "components: each: write all, or a list"),
        (space(components=["mlp"]), "weight.elsewhere: missing; give the value of attention and"),
        (weight(elsewhere=0.0), "weight.elsewhere: no component is left over"),
        (ties(low=0.0, high=1.0), r"density.low: 0 is outside \(0, 1\]"),
        (ties(low=0.1, high=1.1), r"density.high: 1.1 is outside \(0, 1\]"),
        (
            space(parameters={"weight": RANGE, "normalize": RANGE}),
            "normalize: it cannot be searched",
        ),
        (
            space(parameters={"weight": RANGE, "normalize": {}}),
            "normalize: it cannot be searched; give true or false",
        ),
        (space(parameters={"weight": RANGE, "normalize": 1}), "normalize: 1.0: give true or false"),
        (
            space(parameters={"weight": RANGE, "lambda": {**RANGE, "per": "all"}}),
            "lambda.per: it belongs",
        ),
        (space(include_base=True), "include_base: task_arithmetic has the base already"),
        (space(start_from=3), "start_from: 3: give the path of a recipe"),
        (
            {"method": "linear", "parameters": {"weight": {"low": -0.1, "high": 1.0}}},
            r"weight.low: -0.1 is outside \[0, inf\)",
        ),
        (
            {"method": "linear", "parameters": {"weight": {**RANGE, "start": 0.0}}},
            "weight.start: all weights start at 0",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_mend(document, message):
    with pytest.raises(JobError) as caught:
        build(document)
    text = str(caught.value)
    assert "\n" not in text
    assert re.search(message.replace("?", r"\?"), text), text


def test_slerp_of_three_sources_is_refused():
    with pytest.raises(JobError, match="method: slerp merges two models, the job has 3 sources"):
        build({"method": "slerp", "parameters": {"t": RANGE}}, sources=("a", "b", "c"))


def test_linear_over_one_source_is_refused():
    with pytest.raises(JobError, match="linear over one source is that source; add include_base"):
        build({"method": "linear", "parameters": {"weight": RANGE}}, sources=("a",))


def test_components_need_names_that_are_known():
    with pytest.raises(JobError, match="attention: no tensor of OddLM is known as that"):
        build(space(components=["attention", "mlp", "rest"]), unknown_parts())


def test_numbers_may_be_written_without_a_point():
    found = build(
        {"method": "ties", "parameters": {"weight": 1, "density": {"low": "1e-2", "high": 1}}}
    )
    assert [gene.low for gene in found.genes] == [0.01, 0.01]


def test_layers_of_the_space_do_not_matter_where_each_parameter_has_its_own():
    document = {**weight(layers="all"), "layers": {"knots": 9}}
    assert [gene.name for gene in build(document).genes] == ["weight.arithmetic", "weight.japanese"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(JobError, match=r"search_space: per_layer_ties: .* did you mean per_layer_"):
        read_space("per_layer_ties")
    with pytest.raises(JobError, match=r"search_space: spaces/mine\.yaml: no such file"):
        read_space("spaces/mine.yaml")


def test_mistakes_in_a_file_name_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: ties\nparameters: {weight: {low: 1, high: 0}}\n")
    with pytest.raises(JobError, match=r"mine\.yaml\.parameters\.weight\.high: 0: not above"):
        build(str(path))
    path.write_text("method: [")
    with pytest.raises(JobError, match=r"mine\.yaml: not YAML"):
        build(str(path))
    path.write_text("- ties")
    with pytest.raises(JobError, match=r"mine\.yaml: expected a mapping"):
        build(str(path))


@pytest.mark.parametrize(
    "path", sorted(shipped_folder("search_spaces").glob("*.yaml")), ids=lambda p: p.stem
)
def test_a_ready_space_says_what_it_is_for_and_counts_its_genes(path):
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(line.startswith("# Use it ") for line in comment)
    found = build_space(
        path.stem, base=BASE, sources=(ONE, TWO), structure=llama(32), out_dtype="bfloat16", seed=0
    )
    assert comment[-1] == f"# Genes: {len(found.genes)} (32 layers, 2 sources)"
    assert found.encode(found.decode(found.start)) == pytest.approx(found.start, abs=1e-9)


def test_there_are_ready_spaces_from_coarse_to_fine():
    names = {path.stem for path in shipped_folder("search_spaces").glob("*.yaml")}
    assert {"one_weight_per_model", "per_layer_task_arithmetic", "per_layer_dare_ties"} <= names


@pytest.fixture
def winner(tmp_path):
    """A recipe on disk, as a search would have exported it."""
    recipe = Recipe(
        merge_method="task_arithmetic",
        base_model=BASE,
        models=(
            RecipeModel(model=ONE, parameters={"weight": 0.75}),
            RecipeModel(model=TWO, parameters={"weight": 0.25}),
        ),
    )
    (tmp_path / "winner.yaml").write_text(recipe.to_yaml())
    return tmp_path / "winner.yaml"


def test_a_space_may_start_from_a_recipe(winner):
    found = build(space(layers="each", start_from=str(winner)))
    assert found.start == pytest.approx([0.75] * 5 + [0.25] * 5, abs=1e-9)
    assert [gene.start for gene in found.genes] == pytest.approx([0.75] * 5 + [0.25] * 5, abs=1e-9)


def test_start_from_is_relative_to_the_space_and_is_written_out(winner):
    path = winner.parent / "space.yaml"
    path.write_text(
        "method: task_arithmetic\nstart_from: winner.yaml\n"
        "parameters: {weight: {low: 0.0, high: 1.0}}\n"
    )
    document = read_space(str(path))
    assert document["start_from"]["models"][0]["parameters"] == {"weight": 0.75}
    winner.unlink()
    assert read_space(document) == document
    assert build(document).start == pytest.approx([0.75, 0.25], abs=1e-9)


def test_a_recipe_that_the_space_cannot_express_is_refused_as_its_start(winner):
    document = space(start_from=str(winner), parameters={"weight": {"low": 0.0, "high": 0.5}})
    with pytest.raises(JobError, match=r"start_from: .*weight\.arithmetic would be 0\.75, outside"):
        build(document)
    with pytest.raises(JobError, match=r"start_from: .* cannot be read"):
        build(space(start_from="nowhere.yaml"))


def test_building_leaves_the_written_space_as_it_is(winner):
    document = space(start_from=str(winner))
    before = repr(document)
    build(document)
    assert repr(document) == before


def test_positions_outside_the_range_are_seen_as_such():
    gene = build(weight(low=0.5, scale="log")).genes[0]
    assert gene.position(0.25) < 0.0 < 1.0 < gene.position(2.0)
    assert gene.position(-1.0) == -np.inf

import numpy as np
import pytest

from evomerge.errors import JobError
from tests.space.building import BASE, ONE, TWO, build
from tests.space.routes import HOP, layers_of, routes
from tests.space.structures import llama, unknown_parts

AT = "search_space.routes"
MODELS = "write first_source, sources, sources_and_base, or a list of models of the job"
SHARE = "give a whole number of layers, or a percentage such as 150%"


def scales(**keys) -> dict:
    return {"scales": {**HOP, **keys}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"repeat": 2}, f"{AT}.repeat: unknown key; did you mean repeats?"),
        ({"repeats": 0}, f"{AT}.repeats: 0: below 1; give 1 or more"),
        ({"repeats": 9}, f"{AT}.repeats: 9: above 8; give 8 or less"),
        ({"repeats": True}, f"{AT}.repeats: True: not an integer; give a whole number"),
        ({"repeats": 2.0}, f"{AT}.repeats: 2.0: not an integer; give a whole number"),
        ({"conditional": 1}, f"{AT}.conditional: 1: write true or false"),
        (
            {"scales": "hop"},
            f"{AT}.scales: hop: write none, or {{per: hop, low: 0.7, high: 1.4}}",
        ),
        (scales(hihg=2), f"{AT}.scales.hihg: unknown key; did you mean high?"),
        ({"scales": {"low": 0.7}}, f"{AT}.scales.high: missing; add it"),
        (scales(low="a"), f"{AT}.scales.low: a: give a number"),
        (
            scales(low=0),
            f"{AT}.scales.low: 0: not above 0, and a scale of 0 erases all layers before it; "
            "give a positive one",
        ),
        (
            scales(low=-0.5),
            f"{AT}.scales.low: -0.5: not above 0, and a scale of 0 erases all layers before it; "
            "give a positive one",
        ),
        (
            scales(low=1, high=1),
            f"{AT}.scales.high: 1: not above low (1); widen the range",
        ),
        (
            scales(low=1.2),
            f"{AT}.scales.low: 1.2: excludes 1, and the search starts from it; widen the range",
        ),
        (
            scales(high=0.9),
            f"{AT}.scales.high: 0.9: excludes 1, and the search starts from it; widen the range",
        ),
        (scales(per="layer"), f"{AT}.scales.per: layer: write 'hop' or 'pair'"),
        (scales(scale="exp"), f"{AT}.scales.scale: exp: write 'linear' or 'log'"),
        ({"max_layers": 1.5}, f"{AT}.max_layers: 1.5: {SHARE}"),
        ({"max_layers": True}, f"{AT}.max_layers: True: {SHARE}"),
        ({"max_layers": "-5%"}, f"{AT}.max_layers: -5%: {SHARE}"),
        ({"min_layers": "many"}, f"{AT}.min_layers: many: {SHARE}"),
        ({"min_layers": 0}, f"{AT}.min_layers: 0: {SHARE}"),
        (
            {"max_layers": 1},
            f"{AT}.max_layers: 1 is below the 2 that are in every route, the first and the last of "
            f"{ONE}; raise it",
        ),
        (
            {"max_layers": "49%"},
            f"{AT}.max_layers: 49% of 4 layers, which is 1, is below the 2 that are in every "
            f"route, the first and the last of {ONE}; raise it",
        ),
        (
            {"max_layers": 3, "min_layers": 4},
            f"{AT}.max_layers: 3 is below min_layers (4); raise it",
        ),
        (
            {"max_layers": "80%", "min_layers": "100%"},
            f"{AT}.max_layers: 80% of 4 layers, which is 3, is below min_layers (4); raise it",
        ),
        (
            {"min_layers": 9},
            f"{AT}.min_layers: 9 is more than the 8 layers of the space; lower it, or raise "
            "repeats",
        ),
        (
            {"min_layers": 8},
            f"{AT}: only one route has 8 layers and nothing is scaled, so nothing is searched; "
            "raise repeats, or mend the limits",
        ),
        (
            {"max_layers": 2},
            f"{AT}: only one route has 2 layers and nothing is scaled, so nothing is searched; "
            "raise repeats, or mend the limits",
        ),
        (
            {"models": "source"},
            f"{AT}.models: source: {MODELS}",
        ),
        ({"models": []}, f"{AT}.models: {MODELS}"),
        (
            {"models": [ONE, "models/klingon"]},
            f"{AT}.models.1: models/klingon: no such model; the job has {ONE}, {TWO}, {BASE}",
        ),
        (
            {"models": [ONE, TWO, ONE]},
            f"{AT}.models.2: {ONE} is listed twice; raise repeats to pass it again",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_mend(keys, message):
    with pytest.raises(JobError) as caught:
        routes(**keys)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"routes": None}, f"{AT}: None: not a mapping; write its keys"),
        (
            {"routes": {}, "method": "linear"},
            "search_space.method: the space has routes already; keep one of them",
        ),
        (
            {"routes": {}, "start_form": "x"},
            "search_space.start_form: unknown key; did you mean start_from?",
        ),
        ({"route": {}}, "search_space.route: unknown key; did you mean routes?"),
    ],
)
def test_a_mistake_beside_the_routes_is_named_too(document, message):
    with pytest.raises(JobError) as caught:
        build(document)
    assert str(caught.value) == message


def test_mistakes_in_a_file_name_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("routes: {repeats: none}\n")
    with pytest.raises(JobError, match=r"mine\.yaml\.routes\.repeats: none: not an integer"):
        build(str(path))


def test_a_model_of_one_layer_cannot_lead():
    with pytest.raises(JobError) as caught:
        routes(1, repeats=3)
    assert str(caught.value) == (
        f"{AT}.models: {ONE} has one layer, and a route opens with the first and closes with "
        "another; lead with a deeper model"
    )


def test_a_model_of_two_layers_has_routes_in_its_repeats():
    space = routes(2, (ONE,), repeats=2)
    assert [gene.name for gene in space.genes] == ["in.2.arithmetic.00", "in.2.arithmetic.01"]
    with pytest.raises(JobError, match="only one route has 2 layers"):
        routes(2, (ONE,))


def test_scales_that_no_checkpoint_can_hold_are_refused():
    with pytest.raises(JobError, match=r"^search_space\.routes\.scales: .*OddLM") as caught:
        build({"routes": scales()}, unknown_parts())
    assert "\n" not in str(caught.value)
    assert len(build({"routes": {}}, unknown_parts()).genes) == 2


def test_limits_are_shares_of_the_first_models_depth_rounded_down():
    space = routes(7, min_layers="62.5%", max_layers=" 150 % ")
    ends = (np.zeros(len(space.genes)), np.ones(len(space.genes)))
    lengths = [len(layers_of(space.decode(genome))) for genome in ends]
    assert lengths == [4, 10]


def test_a_limit_may_be_none():
    space = routes(max_layers="none", min_layers=None)
    assert len(layers_of(space.decode(np.ones(len(space.genes))))) == 8


def test_no_scales_is_what_is_meant_by_none():
    assert [gene.name for gene in routes().genes] == [
        gene.name for gene in routes(scales="none").genes
    ]


@pytest.mark.parametrize(
    ("models", "found"),
    [
        ("first_source", (ONE,)),
        ("sources", (ONE, TWO)),
        ("sources_and_base", (ONE, TWO, BASE)),
        ([TWO, BASE], (TWO, BASE)),
        (["japanese", "arithmetic"], (TWO, ONE)),
    ],
)
def test_models_are_those_named_the_first_leading(models, found):
    space = routes(3, models=models, max_layers=9)
    assert layers_of(space.decode(space.start)) == [(found[0], layer) for layer in range(3)]
    everything = layers_of(space.decode(np.ones(len(space.genes))))
    assert tuple(dict.fromkeys(model for model, _ in everything)) == found


def test_a_base_that_is_a_source_too_is_passed_once():
    space = routes(3, (BASE, ONE), models="sources_and_base")
    everything = layers_of(space.decode(np.ones(len(space.genes))))
    assert len(everything) == 6


def test_models_may_be_written_without_the_revision_that_pins_them():
    pinned = ("org/a@1f2e", "org/b@3c4d")
    space = build({"routes": {"models": ["org/b", "org/a"]}}, llama(2), sources=pinned)
    assert [gene.source for gene in space.genes] == ["org/a@1f2e", "org/a@1f2e"]


def test_models_may_be_folders_written_in_another_way(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    sources = (str(tmp_path / "one"), str(tmp_path / "two"))
    space = build({"routes": {"models": ["./two/", "one"]}}, llama(2), sources=sources)
    assert [gene.source for gene in space.genes] == [sources[0]] * 2

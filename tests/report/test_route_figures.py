from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from evomerge.recipe import Recipe
from evomerge.report.route_figures import line_weight, show_route
from evomerge.report.slot_history import Known
from evomerge.route import Hop, stretches_of
from tests.report.studies import SOURCES, layered

FIRST, SECOND = SOURCES
MODELS = (
    Known(name="arithmetic", reference=FIRST, depth=4),
    Known(name="japanese", reference=SECOND, depth=4),
)
HOPS = (
    Hop(FIRST, 0),
    Hop(FIRST, 1),
    Hop(SECOND, 1, 1.2),
    Hop(SECOND, 2),
    Hop(SECOND, 2, -0.5),
    Hop(FIRST, 3),
)


def recipe_of(hops: Sequence[Hop] = HOPS) -> Recipe:
    return Recipe(merge_method="passthrough", route=stretches_of(hops))


def spec_of(recipe: Recipe, models: Sequence[Known] = MODELS) -> dict[str, Any]:
    return dict(show_route(recipe, models).figure.spec)


def lines_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in spec["data"] if trace["mode"] == "lines"]


def boxes_of(spec: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """(column, layer) -> box; the embedding and the head are left out."""
    boxes = spec["layout"]["shapes"][:-2]
    middle = lambda box, axis: round((box[f"{axis}0"] + box[f"{axis}1"]) / 2)  # noqa: E731
    return {(middle(box, "x"), middle(box, "y")): box for box in boxes}


def test_a_larger_scale_is_a_thicker_line() -> None:
    weights = [line_weight(scale) for scale in (0.5, 0.9, 1.0, 1.1, 1.4)]
    assert weights == sorted(weights)
    assert line_weight(1.2) == pytest.approx(1.44 * line_weight(1.0))
    assert line_weight(-1.2) == line_weight(1.2)
    assert 0.0 < line_weight(1e-6) < line_weight(0.5)
    assert line_weight(1e6) < 20.0


def test_the_line_into_a_layer_has_the_weight_of_its_scale() -> None:
    lines = lines_of(spec_of(recipe_of()))
    scales = [1.0, 1.2, 1.0, -0.5, 1.0, 1.0]  # pieces of one weight, then the way to the head
    assert [line["line"]["width"] for line in lines] == [line_weight(scale) for scale in scales]
    assert [line["line"]["dash"] for line in lines] == [
        "dot" if scale < 0 else "solid" for scale in scales
    ]
    ends = [(line["x"][-1], line["y"][-1]) for line in lines[:-1]]
    assert [y for _, y in ends] == [1, 1, 2, 2, 3]


def test_every_hop_is_a_dot_that_says_its_scale() -> None:
    dots = spec_of(recipe_of())["data"][-1]
    assert list(dots["y"]) == [0, 1, 1, 2, 2, 3]
    assert dots["hovertext"][2] == "hop 3 of 6<br>japanese layer 1<br>scale 1.200"


def test_scales_other_than_1_are_written_beside_their_layers() -> None:
    spec = spec_of(recipe_of())
    notes = [note for note in spec["layout"]["annotations"] if "xshift" in note]
    assert [(note["text"], note["y"]) for note in notes] == [("1.20", 1), ("−0.50", 2)]
    assert [note["text"] for note in spec["narrow"]["annotations"]] == ["embedding", "norm, head"]


def test_a_number_stands_on_the_side_where_no_line_leaves() -> None:
    hops = (Hop(FIRST, 0), Hop(FIRST, 1, 1.1), Hop(SECOND, 1, 1.2), Hop(FIRST, 3, 1.3))
    spec = spec_of(recipe_of(hops))
    sides = {note["text"]: note.get("xanchor") for note in spec["layout"]["annotations"]}
    assert (sides["1.10"], sides["1.20"], sides["1.30"]) == ("right", "left", "left")


def test_layers_on_the_route_are_filled_and_the_others_pale() -> None:
    boxes = boxes_of(spec_of(recipe_of()))
    assert len(boxes) == 8
    filled = {place for place, box in boxes.items() if box["fillcolor"] != "var(--tint)"}
    assert filled == {(0, 0), (0, 1), (0, 3), (1, 1), (1, 2)}
    assert {boxes[place]["fillcolor"] for place in filled} == {"var(--c1)", "var(--c2)"}


def test_columns_say_their_model_and_how_much_of_it_is_used() -> None:
    captions = spec_of(recipe_of())["layout"]["xaxis"]["ticktext"]
    assert list(captions) == [
        "<b>arithmetic</b><br>3 of 4 layers",
        "<b>japanese</b><br>2 of 4 layers<br>1 of them repeated",
    ]


def test_the_column_of_a_stage_says_so() -> None:
    hops = (Hop("merge", 0), Hop(SECOND, 2), Hop("merge", 3))
    recipe = recipe_of(hops).model_copy(update={"stages": {"merge": layered(0)}})
    models = (Known(name="merge", reference="merge", depth=4), *MODELS)
    captions = spec_of(recipe, models)["layout"]["xaxis"]["ticktext"]
    assert captions[0] == "<b>merge</b><br>winner of stage 1<br>2 of 4 layers"
    assert captions[1] == "<b>arithmetic</b><br>0 of 4 layers"


def test_names_of_others_are_no_markup() -> None:
    models = (Known(name="<b>x", reference=FIRST, depth=4), MODELS[1])
    spec = spec_of(recipe_of(), models)
    assert spec["layout"]["xaxis"]["ticktext"][0].startswith("<b>&lt;b&gt;x</b>")
    assert "&lt;b&gt;x" in spec["data"][-1]["hovertext"][0]


def test_the_table_has_a_row_for_each_stretch() -> None:
    rows = show_route(recipe_of(), MODELS).rows
    assert [(row.hops, row.model, row.layers, row.scale) for row in rows] == [
        ("1–2", "arithmetic", "0–1", 1.0),
        ("3–4", "japanese", "1–2", 1.2),
        ("5", "japanese", "2", -0.5),
        ("6", "arithmetic", "3", 1.0),
    ]


def test_weights_are_explained_only_where_something_is_scaled() -> None:
    view = show_route(recipe_of(), MODELS)
    assert [text for _, text in view.weights] == ["-0.50", "1.00", "1.20"]
    assert (view.hops, view.leading, view.depth) == (6, "arithmetic", 4)
    plain = show_route(recipe_of((Hop(FIRST, 0), Hop(FIRST, 3))), MODELS)
    assert plain.weights == ()


@pytest.mark.parametrize("depth", [2, 48, 120])
def test_deep_models_have_flatter_layers(depth: int) -> None:
    models = (Known(name="deep", reference=FIRST, depth=depth),)
    figure = show_route(recipe_of([Hop(FIRST, i, 1.1) for i in range(depth)]), models).figure
    assert figure.height < 1200
    assert figure.height == figure.spec["layout"]["height"]
    notes = [note for note in figure.spec["layout"]["annotations"] if "xshift" in note]
    assert len(notes) == (0 if depth > 80 else depth)


def test_the_description_says_the_route_in_words() -> None:
    said = show_route(recipe_of(), MODELS).figure.description
    assert said == (
        "Route through 6 layers: arithmetic 0–1; japanese 1–2 by 1.20; japanese 2 by -0.50; "
        "arithmetic 3."
    )

"""Records made by version 0.1 still open, go on, and give what they gave then.

tests/fixtures/records_0_1 says how they were made. Only what `import evomerge` offers is used here,
as a user's own program would.
"""

from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import evomerge

ROOT = Path(evomerge.__file__).parents[1]
RECORDS = Path(__file__).parent / "fixtures" / "records_0_1"

WEIGHTS = {
    "arithmetic, .self_attn.": 0.6385411725783682,
    "arithmetic, .mlp.": 0.7293118582471576,
    "arithmetic, the rest": 0.4263424305020679,
    "counting, .self_attn.": 0.6382008161041695,
    "counting, .mlp.": 0.35392108627872665,
    "counting, the rest": 0.5658886665232092,
}
"""What the winner's recipe weighs the parts of each expert with."""

GENOME = (
    *(0.42569411505224547, 0.48620790549810505, 0.2842282870013786),
    *(0.42546721073611293, 0.23594739085248445, 0.3772591110154728),
)
"""Of the same winner: the weights in units of the space's 1.5."""

POINTS = {
    "counting": (0.3142857142857143, 1.0),
    "TIES": (0.6285714285714286, 0.4411764705882353),
    "g0001-i005": (0.8285714285714286, 0.08823529411764706),
    "arithmetic": (0.9428571428571428, 0.08823529411764706),
}
"""The points of the front -> their test scores in arithmetic and in counting."""

LAYERS = "arithmetic: 0 1 2 3 4, counting: 3, arithmetic: 5"
"""Of the route g0001-i005, in the order in which a token passes through them."""

ROUTE = (
    *(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    *(0.27744954474385597, 0.5576486379819228, 0.41981493047181784, 0.34293909982784765),
    *(0.34073965948449736, 0.559309352781244, 0.5743518310248157, 0.7349827511242304),
    *(0.5122540614090759, 0.6882131326985619, 0.7482839772918453, 0.7062674455213735),
)
"""Its genome: which of the layers it takes that are not always in it, then the scales."""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A run directory of version 0.1; it names its models from the top of the checkout."""
    monkeypatch.chdir(ROOT)
    shutil.unpack_archive(RECORDS / f"{request.param}.tar.xz", tmp_path, filter="data")
    return tmp_path / str(request.param)


def recorded_rows(result: evomerge.SearchResult, candidates: pd.Series) -> pd.DataFrame:
    """What a record holds of some candidates."""
    return result.trials_dataframe().set_index("candidate").loc[candidates]


@pytest.mark.parametrize("record", ["weights"], indirect=True)
def test_a_winner_and_its_gain_are_those_of_then(record: Path) -> None:
    result = evomerge.open_run(record)
    assert result.finished and result.candidates == 6 and result.verdict == "no gain"
    assert result.headline.startswith("No gain: the winner (average of the second half's means)")
    gain, winner = result.gain, result.winner
    assert gain is not None
    assert (gain.value, gain.low, gain.high) == (
        -0.06103225533832979,
        -0.30375457624912927,
        0.1816900655724697,
    )
    assert (gain.against, gain.settled) == ("counting", False)
    assert winner.genome == GENOME
    assert weights_of(yaml.safe_load(winner.recipe.to_yaml())) == WEIGHTS
    scores = result.scores()["score", "value"]
    assert scores[winner.label] == winner.scores.score.value == 0.4995796552430584
    assert scores["TIES"] == 0.5266031944165814
    assert len(result.trials_dataframe()) == 32
    items = result.items_dataframe()
    assert (len(items), items["value"].sum()) == (3029, 1804.0)


@pytest.mark.parametrize("record", ["front"], indirect=True)
def test_a_front_is_that_of_then(record: Path) -> None:
    result = evomerge.open_run(record)
    assert result.finished and result.candidates == 6 and result.verdict == "no gain"
    assert [point.label for point in result.front] == list(POINTS)
    scores = result.scores().iloc[: len(POINTS)]
    for task, place in (("kana_arithmetic_en", 0), ("kana_counting_ja", 1)):
        wanted = [point[place] for point in POINTS.values()]
        assert scores[f"{task}/exact_match", "value"].tolist() == wanted
    [route] = [point for point in result.front if point.found]
    assert route.genome == ROUTE
    assert len(result.trials_dataframe()) == 30
    items = result.items_dataframe()
    assert (len(items), items["value"].sum()) == (2811, 1564.0)


@pytest.mark.parametrize("record", ["weights", "front"], indirect=True)
def test_a_search_goes_on_and_what_was_recorded_stays(record: Path) -> None:
    before = evomerge.open_run(record)
    known = before.trials_dataframe()["candidate"]
    after = evomerge.resume(record, set={"budget.candidates": 12})
    assert (before.candidates, after.candidates) == (6, 12)
    assert after.finished
    # What was answered then was not kept; what the last selection scored is.
    with pytest.raises(evomerge.RunError, match="no answers of it were kept"):
        after.answers(split="search")
    said = after.answers()
    assert {"winner", "finalist", "parent"} & set(said["role"])
    assert set(said["change"]) <= {"lost", "gained", "differs", "same"}
    assert said["answer"].notna().all() and said["value"].notna().all()
    now = after.trials_dataframe()
    added = now[~now["candidate"].isin(known)]
    genomes = added[added["kind"] == "genome"]
    assert list(genomes["candidate"]) == [f"g0002-i{place:03}" for place in range(6)]
    assert genomes["failure"].isna().all()
    assert set(added["phase"]) >= {"search", "validation", "test"}
    fresh = unpacked_again(record)
    pd.testing.assert_frame_equal(
        recorded_rows(after, known), recorded_rows(fresh, known), check_exact=True
    )
    pd.testing.assert_frame_equal(
        after.items_dataframe(known), fresh.items_dataframe(known), check_exact=True
    )


@pytest.mark.parametrize("record", ["weights"], indirect=True)
def test_a_winner_is_exported_verified_and_reported(record: Path, tmp_path: Path) -> None:
    result = evomerge.open_run(record)
    exported = result.export(tmp_path / "merged", verify=True)
    assert exported.verified
    recipe = yaml.safe_load((tmp_path / "merged" / "recipe.yaml").read_text(encoding="utf-8"))
    assert weights_of(recipe) == WEIGHTS
    assert tuple(recipe["evomerge"]["genome"]) == GENOME
    page = result.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No gain: the winner" in page


@pytest.mark.parametrize("record", ["front"], indirect=True)
def test_a_route_of_a_front_is_exported_and_the_front_reported(
    record: Path, tmp_path: Path
) -> None:
    result = evomerge.open_run(record)
    result.export(tmp_path / "merged", point="g0001-i005")
    recipe = yaml.safe_load((tmp_path / "merged" / "recipe.yaml").read_text(encoding="utf-8"))
    assert layers_of(recipe) == LAYERS
    assert tuple(recipe["evomerge"]["genome"]) == ROUTE
    page = result.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No gain: a front of 4 merges" in page


def unpacked_again(record: Path) -> evomerge.SearchResult:
    """The record as it was, read anew."""
    folder = record.with_name("again")
    shutil.unpack_archive(RECORDS / f"{record.name}.tar.xz", folder, filter="data")
    return evomerge.open_run(folder / record.name)


def layers_of(recipe: dict[str, Any]) -> str:
    """Layers of a recipe of slices by the model that they are of."""
    inputs = [source for piece in recipe["slices"] for source in piece["sources"]]
    return ", ".join(
        f"{model}: {' '.join(str(entry['layer_range'][0]) for entry in entries)}"
        for model, entries in groupby(inputs, key=lambda entry: Path(entry["model"]).name)
    )


def weights_of(recipe: dict[str, Any]) -> dict[str, float]:
    """What a recipe weighs each part of each expert with."""
    return {
        f"{Path(model['model']).name}, {part.get('filter', 'the rest')}": part["value"]
        for model in recipe["models"]
        for part in model["parameters"]["weight"]
    }

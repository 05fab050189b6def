"""Recipes that are far too much are refused in a line, and not worked on."""

from __future__ import annotations

import pytest

from evomerge.errors import RecipeError
from evomerge.recipe import read_recipe


def stage(name: str | None, *models: str) -> str:
    listed = "".join(f"- {{model: {model}, parameters: {{weight: 1.0}}}}\n" for model in models)
    named = "" if name is None else f"name: {name}\n"
    return f"{named}merge_method: linear\nmodels:\n{listed}---\n"


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as raised:
        read_recipe(text, where="FILE")
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_twenty_thousand_slices_are_too_many() -> None:
    piece = "- sources: [{model: m, layer_range: [0, 1]}]\n"
    assert "100,000 values" in refusal("merge_method: passthrough\nslices:\n" + piece * 20_000)


def test_thousands_of_stages_are_too_many() -> None:
    links = "".join(stage(f"s{n}", f"s{n + 1}") for n in range(3000))
    assert "at most 100" in refusal(links + stage(None, "s0"))


def test_stages_in_a_circle_are_refused_however_long_it_is() -> None:
    links = "".join(stage(f"s{n}", f"s{(n + 1) % 90}") for n in range(90))
    assert "is made of itself" in refusal(links + stage(None, "s0"))


def test_a_chain_of_stages_is_read_and_what_multiplies_is_not() -> None:
    chain = "".join(stage(f"s{n}", f"s{n + 1}") for n in range(60))
    assert len(read_recipe(chain + stage(None, "s0"), where="FILE").stages) == 60
    doubling = "".join(stage(f"s{n}", f"s{n + 1}", f"s{n + 2}") for n in range(60))
    assert "needs more than 1,000 merges" in refusal(doubling + stage(None, "s0"))


@pytest.mark.parametrize("model", ['"a\\nb"', '"a\\e[1mb"', '"a\\Lb"'])
def test_a_name_with_a_control_character_is_refused(model: str) -> None:
    assert "control character" in refusal(stage(None, model).removesuffix("---\n"))

"""A merge method of an installed package is one like evomerge's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from mergekit.merge_methods import registered_methods

import evomerge
from evomerge.merge.methods import registry as methods
from evomerge.workers.preparation.fingerprints import fingerprints_of
from evomerge.workers.preparation.preparation import prepare
from tests.checkpoints import load_tensors
from tests.own_parts import installed, installed_example, write_metadata
from tests.search.jobs import job_document, make_job, write_models


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed_example("own_method", tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def recipe(models: Path, method: str = "agreement") -> dict[str, object]:
    weighed = [
        {"model": str(models / name), "parameters": {"weight": weight}}
        for name, weight in (("first", 0.5), ("second", 0.25))
    ]
    return {"merge_method": method, "base_model": str(models / "base"), "models": weighed}


def test_a_recipe_is_merged_by_it(example: None, models: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(models)))
    evomerge.merge(file, tmp_path / "out")
    base, first, second = (load_tensors(models / name) for name in ("base", "first", "second"))
    for name, found in load_tensors(tmp_path / "out").items():
        one, other = first[name] - base[name], second[name] - base[name]
        agree = one.sign() + other.sign() == 2 * one.sign()
        agree &= one.sign() != 0
        expected = base[name] + torch.where(agree, 0.5 * one + 0.25 * other, 0.0)
        assert torch.equal(found, expected), name
    card = (tmp_path / "out" / "README.md").read_text()
    assert "by `agreement` (an example of evomerge's documentation)" in card
    assert "mergekit-yaml" not in card


def test_a_search_has_it_in_its_space_and_its_version_in_its_record(
    example: None, models: Path, tmp_path: Path
) -> None:
    space = {"method": "agreement", "layers": "each", "parameters": {"weight": {"start": 0.5}}}
    document = job_document(models, search_space=space, budget={"candidates": 4})
    result = evomerge.search(document, tmp_path / "run")
    trials = result.trials_dataframe()
    assert trials[trials["kind"] == "genome"]["failure"].isna().all()
    facts = fingerprints_of(prepare(make_job(models, search_space=space)))
    said = facts["versions"]["merge method agreement"]
    assert said.startswith("evomerge-agreement 1.0 (sha256 ")


def test_a_name_that_is_none_is_refused_with_those_that_are(
    example: None, models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(models, "agrement")))
    with pytest.raises(evomerge.RecipeError, match="did you mean agreement"):
        evomerge.merge(file, tmp_path / "out")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ImportError('no library')", r"of broken 2.0, cannot be imported \(no library\)"),
        (
            "BROKEN = 3",
            "of broken 2.0: broken_method:BROKEN is no evomerge.merge.Method",
        ),
    ],
)
def test_a_package_that_cannot_be_used_is_named_where_it_is_asked_for(
    models: Path, tmp_path: Path, code: str, words: str
) -> None:
    site = tmp_path / "site"
    points = {"broken": "broken_method:BROKEN", "linear": "broken_method:X"}
    write_metadata(site, "broken", "2.0", {methods.METHODS.group: points})
    (site / "broken_method.py").write_text(code)
    with installed(site):
        file = tmp_path / "recipe.yaml"
        assert methods.METHODS["linear"] is methods.BUILT_IN["linear"], "ours keeps its name"
        file.write_text(yaml.safe_dump(recipe(models, "broken")))
        with pytest.raises(evomerge.RecipeError, match=words) as refused:
            evomerge.merge(file, tmp_path / "out")
        assert "\n" not in str(refused.value)


def test_mergekit_has_the_methods_that_are_said_to_be_its_own() -> None:
    said = {name for name, method in methods.BUILT_IN.items() if method.mergekit}
    theirs = {method.spec.name for method in registered_methods()}
    assert said == theirs & set(methods.BUILT_IN)

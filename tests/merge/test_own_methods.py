"""A merge method of an installed package is one like evomerge's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from mergekit.merge_methods import registered_methods

import evomerge
from evomerge.merge import MergeEngine
from evomerge.merge.methods import registry as methods
from evomerge.recipe import read_recipe
from evomerge.sources import open_source
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


METHOD = """
from evomerge.merge import Method, ParameterSpec

def merge(inputs, out):
    {code}

OWN = Method(
    name="own", citation="a test",
    parameters={{"weight": ParameterSpec(kind="number", scope="model", search=(0.0, 1.0))}},
    merge=merge, needs_base=True, weighs_base=False, min_models=2,
)
"""


@contextlib.contextmanager
def own(site: Path, code: str) -> Iterator[None]:
    """A method `own` of a package, that does this."""
    write_metadata(site, "own", "2.0", {methods.METHODS.group: {"own": "own_part:OWN"}})
    (site / "own_part.py").write_text(METHOD.format(code=code))
    with installed(site):
        yield


def test_what_its_code_raises_is_said_in_a_line(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(models, "own")))
    words = "own: its code raised KeyError: 'wieght'"
    with (
        own(tmp_path / "site", "inputs.number('wieght', 0)"),
        pytest.raises(evomerge.RecipeError, match=words),
    ):
        evomerge.merge(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_it_writes_to_is_no_other_models(models: Path) -> None:
    def tensors() -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in engine.execute(plain)}

    code = "inputs.tensor(inputs.experts[0]).zero_(); out.copy_(inputs.stored(inputs.base))"
    document = yaml.safe_dump(recipe(models, "own"))
    plain = read_recipe(document.replace("own", "task_arithmetic"), where="recipe")
    engine = MergeEngine({name: open_source(name, where="x") for name in plain.references})
    with own(models / "site", code):
        before = tensors()
        for _ in engine.execute(read_recipe(document, where="recipe")):
            pass
        after = tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_two_packages_with_one_name_are_refused(models: Path, tmp_path: Path) -> None:
    write_metadata(tmp_path / "site", "another", "1.0", {methods.METHODS.group: {"own": "x:Y"}})
    with own(tmp_path / "site", "pass"):
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe(models, "own")))
        with pytest.raises(evomerge.RecipeError, match=r"own is offered by another 1.0 and by own"):
            evomerge.merge(file, tmp_path / "out")


def test_a_model_is_not_exported_by_other_code_than_it_was_scored_with(
    models: Path, tmp_path: Path
) -> None:
    space = {"method": "own", "layers": "each", "parameters": {"weight": {"start": 0.5}}}
    space["parameters"]["weight"].update({"low": 0.0, "high": 1.0})
    document = job_document(models, search_space=space, budget={"candidates": 4})
    code = "out.copy_(inputs.tensor(inputs.experts[0]))"
    with own(tmp_path / "site", code):
        result = evomerge.search(document, tmp_path / "run")
        candidate = str(result.trials_dataframe().query("kind == 'genome'")["candidate"].iloc[0])
        evomerge.export(tmp_path / "run", tmp_path / "out", trial=candidate)
        card = (tmp_path / "out" / "README.md").read_text()
        assert "- mergekit" not in card, "no tag of what does not have the method"
    words = r"merge method own is own 2\.0 .* and was own"
    with (
        own(tmp_path / "other", code + "; out.mul_(2)"),
        pytest.raises(evomerge.RunError, match=words),
    ):
        evomerge.export(tmp_path / "run", tmp_path / "again", trial=candidate)


def test_mergekit_has_the_methods_that_are_said_to_be_its_own() -> None:
    said = {name for name, method in methods.BUILT_IN.items() if method.mergekit}
    theirs = {method.spec.name for method in registered_methods()}
    assert said == theirs & set(methods.BUILT_IN)

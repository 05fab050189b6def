"""The stream: names, order, dtypes, and bytes that depend on nothing but recipe and sources."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evomerge.errors import RecipeError
from evomerge.merge.engine import MergeEngine
from evomerge.merge.methods.registry import METHODS
from evomerge.sources import open_source
from tests.checkpoints import replace_tensors, save_tiny_llama
from tests.merge.conftest import Document, Family, as_recipe, make_family


def digest(family: Family, document: Document, **options: int) -> str:
    """Over every name, dtype and byte of a merge, in its order."""
    total = hashlib.sha256()
    for name, tensor in family.merge(document, **options).items():
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


CALIBRATED = ("fisher", "regmean", "gradient_matching")
"""Methods that need statistics of the sources; they have tests of their own."""

PLAIN = [method for method in METHODS if method not in CALIBRATED]

EXPERTS = {"slerp": 1, "nearswap": 1, "arcee_fusion": 1, "passthrough": 1, "nuslerp": 2}
"""How many models a method takes besides the base, where it is not as many as one likes."""


def usual(family: Family, method: str, **more: object) -> Document:
    """A merge by `method` with every parameter it has at work."""
    specs = METHODS[method].parameters
    count = EXPERTS.get(method, 3)
    per_model = {"weight": [0.3, 0.9, 0.2], "density": 0.43}
    models = [
        {"model": model, "parameters": {n: v for n, v in per_model.items() if n in specs}}
        for model in family.experts[:count]
    ]
    parameters = {n: v for n, v in {"lambda": 1.3, "t": [0.2, 0.7]}.items() if n in specs}
    document: Document = {"merge_method": method, "models": models, "parameters": parameters}
    if METHODS[method].needs_base:
        document["base_model"] = family.base
    return {**document, **more}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Tensors that torch splits among threads, of sizes that leave odd ends to each."""
    return make_family(tmp_path_factory.mktemp("large"), hidden=72, vocabulary=1501, layers=2)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("out_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", PLAIN)
def test_bytes_do_not_depend_on_threads(
    large: Family, restored_threads: None, method: str, out_dtype: str
) -> None:
    document = usual(large, method, out_dtype=out_dtype)
    found = set()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.add(digest(large, document))
    assert len(found) == 1


@pytest.mark.parametrize("method", PLAIN)
def test_bytes_do_not_depend_on_facts_kept_or_on_what_ran_before(
    family: Family, method: str
) -> None:
    document = usual(family, method)
    engine = MergeEngine(family.sources)
    other = usual(family, "dare_ties", evomerge={"seed": 3})
    for warm_up in (document, other):
        for _ in engine.execute(as_recipe(warm_up)):
            pass
    again = dict(engine.execute(as_recipe(document)))
    for limit_bytes in (0, 50_000):
        fresh = family.merge(document, limit_bytes=limit_bytes)
        assert all(torch.equal(again[name], fresh[name]) for name in again)


def test_tensors_are_written_where_they_are_wanted(bfloat16_family: Family) -> None:
    family = bfloat16_family
    document = usual(family, "ties")
    expected = family.merge(document)
    shapes = family.sources[family.base].structure.shapes
    wanted = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    gone, wrong, *_ = shapes
    del wanted[gone]
    wanted[wrong] = torch.zeros(shapes[wrong])  # another dtype cannot be written to as it is
    engine = MergeEngine(family.sources)
    for name, tensor in engine.execute(as_recipe(document), into=wanted.get):
        assert torch.equal(tensor, expected[name])
        there = name not in (gone, wrong)
        assert (name in wanted and tensor.data_ptr() == wanted[name].data_ptr()) == there


@pytest.mark.parametrize("method", ["dare_ties", "dare_linear"])
def test_random_masks_follow_the_seed_and_the_place_and_not_the_path(
    family: Family, tmp_path: Path, method: str
) -> None:
    moved = {
        reference: str(shutil.copytree(reference, tmp_path / Path(reference).name))
        for reference in (family.base, *family.experts)
    }
    elsewhere = Family(
        moved[family.base],
        tuple(moved[expert] for expert in family.experts),
        {path: open_source(path, where="test") for path in moved.values()},
    )
    here = digest(family, usual(family, method))
    assert here == digest(elsewhere, usual(elsewhere, method))
    assert here == digest(family, usual(family, method, evomerge={"seed": 0}))
    assert here != digest(family, usual(family, method, evomerge={"seed": 1}))


@pytest.mark.parametrize("method", ["ties", "dare_ties", "task_arithmetic"])
def test_listing_the_base_changes_nothing(family: Family, method: str) -> None:
    document = usual(family, method)
    listed = {**document, "models": [{"model": family.base}, *document["models"]]}
    assert digest(family, document) == digest(family, listed)


def test_tensors_come_in_the_bases_order_with_its_dtype(bfloat16_family: Family) -> None:
    family = bfloat16_family
    for method in ("ties", "linear"):
        merged = family.merge(usual(family, method))
        assert list(merged) == list(family.sources[family.base].structure.shapes)
        assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    as_float = family.merge(usual(family, "ties", out_dtype="float32"))
    assert {tensor.dtype for tensor in as_float.values()} == {torch.float32}


def test_rounding_happens_once_at_the_end(bfloat16_family: Family) -> None:
    family = bfloat16_family
    exact = family.merge(usual(family, "ties", out_dtype="float32"))
    rounded = family.merge(usual(family, "ties", out_dtype="bfloat16"))
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) for name in exact)


def test_a_merge_leaves_its_sources_as_they_were(family: Family) -> None:
    before = {reference: family.tensors(reference) for reference in family.sources}
    for method in PLAIN:
        for tensor in family.merge(usual(family, method)).values():
            tensor.zero_()  # what a consumer does with its tensors is its own affair
    for reference, source in family.sources.items():
        for name, tensor in before[reference].items():
            assert torch.equal(source.tensor(name), tensor)


def test_a_base_alone_comes_back_as_new_memory(family: Family) -> None:
    document = {
        "merge_method": "ties",
        "base_model": family.base,
        "models": [{"model": family.base}],
    }
    source = family.sources[family.base]
    for name, tensor in family.merge(document).items():
        assert torch.equal(tensor, source.tensor(name))
        assert tensor.data_ptr() != source.tensor(name).data_ptr()


def test_tensors_that_are_not_float_are_the_bases_own(tmp_path: Path) -> None:
    family = make_family(tmp_path, experts=2)
    for step, reference in enumerate(family.sources):
        replace_tensors(Path(reference), {"model.positions": torch.arange(5) + step})
    family = Family(
        family.base, family.experts, {r: open_source(r, where="test") for r in family.sources}
    )
    document = usual(family, "linear", base_model=family.base, out_dtype="bfloat16")
    document["models"] = document["models"][:2]
    document["parameters"] = {"weight": 0.4}
    merged = family.merge(document)
    assert merged["model.positions"].tolist() == [0, 1, 2, 3, 4]
    assert merged["model.positions"].dtype == torch.int64


def test_a_tied_head_is_not_in_the_stream(tmp_path: Path) -> None:
    family = make_family(tmp_path, experts=3, tied=True)
    assert "lm_head.weight" not in family.merge(usual(family, "ties"))


def test_a_model_that_was_not_opened_is_refused_at_once(family: Family) -> None:
    document = usual(family, "ties")
    document["models"] = [*document["models"], {"model": "elsewhere", "parameters": {"weight": 1}}]
    with pytest.raises(RecipeError, match="elsewhere is not among the models opened here"):
        MergeEngine(family.sources).execute(as_recipe(document))


def test_a_wrong_recipe_is_refused_before_any_tensor_is_asked_for(family: Family) -> None:
    engine = MergeEngine(family.sources)
    with pytest.raises(RecipeError, match="merge_method"):
        engine.execute(as_recipe(usual(family, "ties") | {"merge_method": "tie"}))


def test_models_that_do_not_fit_are_refused_at_once(family: Family, tmp_path: Path) -> None:
    other = str(save_tiny_llama(tmp_path / "other", seed=1, layers=3))
    engine = MergeEngine({**family.sources, other: open_source(other, where="test")})
    document = usual(family, "ties")
    document["models"] = [*document["models"], {"model": other, "parameters": {"weight": 1}}]
    with pytest.raises(RecipeError, match=r"has 3 layers and .* 4; say with slices"):
        engine.execute(as_recipe(document))

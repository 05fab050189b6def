"""Merges by compiled kernels alone: the bytes that the engine makes, without torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import evomerge
from evomerge import deferred
from evomerge.errors import MergeError
from evomerge.export.checkpoint import write_checkpoint
from evomerge.merge import ELEMENT_TYPES, Elements, compiled_merge
from evomerge.merge.compiled import CompiledMerge
from evomerge.merge.engine import MergeEngine
from evomerge.merge.kernels import threads
from evomerge.merge.methods.base import Value
from evomerge.merge.methods.registry import BUILT_IN
from evomerge.sources import open_source
from tests.checkpoints import load_tensors, replace_tensors, save_fine_tuned, save_tiny_llama
from tests.merge.conftest import Document, Family, as_recipe, make_family, open_family
from tests.merge.parity_cases import CASES, DENSITIES, NAMES, WEIGHTS, experts
from tests.merge.tensor_inputs import TensorInputs

COMPILED = {name for name, method in BUILT_IN.items() if method.compiled}
RANDOM = sorted(name for name in COMPILED if BUILT_IN[name].random)


def compiled(family: Family, document: Document) -> CompiledMerge | None:
    recipe = as_recipe(document)
    return compiled_merge(recipe, MergeEngine(family.sources).plan(recipe), family.sources)


def elements_of(merge: CompiledMerge, family: Family, order: list[str]) -> Iterator[Elements]:
    shapes = family.sources[family.base].structure.shapes

    def give(name: str) -> Elements:
        dtype, count = merge.dtype(name), int(np.prod(shapes[name]))
        return Elements(np.full(count, 77, ELEMENT_TYPES[dtype]), dtype, shapes[name])

    return (elements for _, elements in merge.execute(give, order))


def assert_equal(family: Family, document: Document) -> None:
    """To the bit, in an order of its own."""
    wanted = family.merge(document, limit_bytes=0)
    merge = compiled(family, document)
    assert merge is not None
    order = sorted(wanted, reverse=True)
    for name, elements in zip(order, elements_of(merge, family, order), strict=True):
        assert f"torch.{elements.dtype}" == str(wanted[name].dtype)
        found = torch.from_numpy(elements.array.view(np.uint8))
        assert torch.equal(found, wanted[name].reshape(-1).view(torch.uint8)), name


@pytest.mark.parametrize(("method", "case"), [pair for pair in NAMES if pair[0] in COMPILED])
def test_special_cases_are_those_of_the_engine(family: Family, method: str, case: str) -> None:
    assert_equal(family, {"merge_method": method, **CASES[method](family)[case]})


@pytest.mark.parametrize("method", RANDOM)
@pytest.mark.parametrize("out_dtype", ["bfloat16", "float16", "float32"])
def test_random_masks_are_those_of_the_engine(
    bfloat16_family: Family, method: str, out_dtype: str
) -> None:
    models = experts(bfloat16_family, weight=WEIGHTS, density=DENSITIES)
    document = {"merge_method": method, "base_model": bfloat16_family.base, "models": models}
    assert_equal(bfloat16_family, {**document, "out_dtype": out_dtype})


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("out_dtype", ["bfloat16", "float16", "float32"])
def test_a_tensor_that_is_kept_is_rounded_as_the_engine_rounds(
    tmp_path: Path, stored: torch.dtype, out_dtype: str
) -> None:
    """Of a density of 0 only the base is left. float16 is coarser for small numbers."""
    family = make_family(tmp_path, experts=1, dtype=stored)
    models = experts(family, 1, weight=0.7, density=0.0)
    document = {"merge_method": "ties", "base_model": family.base, "models": models}
    assert_equal(family, {**document, "out_dtype": out_dtype})


def test_other_merges_are_left_to_the_engine(bfloat16_family: Family, tmp_path: Path) -> None:
    family = bfloat16_family
    for method in ("nuslerp", "della", "model_stock", "passthrough"):
        assert method not in COMPILED
    two = experts(family, 2, weight=0.5)
    assert compiled(family, {"merge_method": "nuslerp", "models": two}) is None
    other = save_fine_tuned(tmp_path / "other", of=Path(family.base), seed=9)
    assert compiled(family, {"merge_method": "linear", "models": two}) is not None
    name = "model.norm.weight"
    replace_tensors(other, {name: load_tensors(other)[name].float()})
    mixed = open_family(Path(family.base), other)
    listed = [{"model": each, "parameters": {"weight": 0.5}} for each in mixed.sources]
    assert (
        compiled(mixed, {"merge_method": "linear", "models": listed}) is None
    )  # two dtypes of one tensor


def test_no_torch_is_needed_once_transformers_has_answered(
    bfloat16_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = bfloat16_family
    models = experts(family, 2, weight=WEIGHTS, density=DENSITIES)
    recipe = as_recipe({"merge_method": "ties", "base_model": family.base, "models": models})
    source = family.sources[family.base]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_checkpoint(recipe, family.sources, source, tmp_path / name)
        monkeypatch.setattr(deferred._Deferred, "__getattr__", refuse)
        monkeypatch.setattr(threads, "threads_here", lambda: 1)  # torch's, as it is imported here
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(AssertionError, match="asked for"):  # so that the test can fail
        MergeEngine(family.sources).merge_tensor(
            recipe, MergeEngine(family.sources).plan(recipe).tensors[0]
        )


def refuse(self: object, name: str) -> object:
    raise AssertionError(f"{name} was asked for")


def test_nothing_that_a_merge_loads_imports_torch_at_once() -> None:
    reached = {"evomerge.export.recipe_file"}
    waiting = list(reached)
    while waiting:
        for name in at_once(waiting.pop()):
            first = name.split(".")[0]
            assert first not in {"torch", "transformers", "jinja2", "peft"}, (name, reached)
            if first == "evomerge" and name not in reached:
                reached.add(name)
                waiting.append(name)
    assert {"evomerge.merge.kernels.task_vectors", "evomerge.sources.meta"} <= reached


def at_once(module: str) -> Iterator[str]:
    """The modules that one imports when it is imported; through the faces of rooms."""
    for node in ast.parse(path_of(module, ".py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            face = path_of(str(node.module), ".pyi")
            if not face.exists():
                yield str(node.module)
                continue
            names = {alias.name for alias in node.names}
            for line in ast.parse(face.read_text(encoding="utf-8")).body:
                if isinstance(line, ast.ImportFrom) and names & {each.name for each in line.names}:
                    yield f"{node.module}.{line.module}"


def path_of(module: str, suffix: str) -> Path:
    path = Path(evomerge.__file__).parents[1].joinpath(*module.split("."))
    return path / f"__init__{suffix}" if path.is_dir() else path.with_suffix(suffix)


def test_a_result_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    """Weights that make an infinity of finite numbers; the message is the engine's."""
    base = save_tiny_llama(tmp_path / "base", seed=0, dtype=torch.float16)
    source = open_source(str(base), where="test")
    family = Family(str(base), (str(base),), {str(base): source})
    models = [{"model": str(base), "parameters": {"weight": 1e9}}]
    document = {"merge_method": "linear", "models": models, "parameters": {"normalize": False}}
    assert compiled(family, document) is not None
    said = []
    (tmp_path / "out").mkdir()
    with pytest.raises(MergeError) as raised:
        write_checkpoint(as_recipe(document), family.sources, source, tmp_path / "out")
    said.append(str(raised.value).partition(":")[2])
    with pytest.raises(MergeError) as raised:
        family.merge(document)
    said.append(str(raised.value).partition(":")[2])
    assert said[0] == said[1]
    assert "the merge makes infinity" in said[0]


class Drawing(TensorInputs):
    """Weights are densities too; nothing is kept unless a test says so."""

    kept = False

    def draw_key(self, member: int) -> int:
        return 2**40 + member

    def keeps(self, kind: str, members: tuple[int, ...], size_bytes: int) -> bool:
        return self.kept


@pytest.mark.parametrize("exact", [True, False])
def test_whether_a_table_is_kept_changes_no_bit(exact: bool) -> None:
    base = torch.randn(150_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    noise = 0.1 * torch.randn(150_000, generator=torch.Generator().manual_seed(1))
    expert = (base + noise).bfloat16()
    if not exact:
        base[0], expert[0] = 0.0, 1e-30
    values: dict[str, Value] = {"normalize": False, "lambda": 1.0, "rescale": "l1"}
    found = []
    for Drawing.kept in (False, True):
        inputs = Drawing([base, expert], values, [0.0, 0.43], base=0)
        found.append(torch.empty(150_000))
        BUILT_IN["dare_linear"].merge(inputs, found[-1])
        assert inputs.facts_made == int(Drawing.kept or not exact)  # tables
    assert torch.equal(found[0], found[1])

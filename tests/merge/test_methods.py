"""One contract for every method of the registry, and slow references for those without a kernel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from evomerge.errors import EvomergeError
from evomerge.merge.methods.geometry import stock_ratio
from evomerge.merge.methods.registry import METHODS
from evomerge.merge.methods.spherical import (
    karcher_coefficients,
    multislerp_coefficients,
    nuslerp_coefficients,
    slerp_coefficients,
)
from tests.merge.conftest import Document, Tensors, as_recipe
from tests.merge.memory_sources import (
    document_of,
    engine_over,
    merge,
    merge_one,
    write_statistics,
)

SHAPES = {
    "embeddings.weight": (11, 6),
    "layers.0.weight": (7, 13),
    "layers.0.bias": (13,),
    "layers.1.weight": (4, 4),
    "layers.1.convolution": (5, 1, 3),
    "scale": (),
    "none.weight": (0, 4),
}
STORED = [torch.float32, torch.bfloat16, torch.float16]


def random_models(dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensors]:
    """A base and three experts at a distance of a tenth of their size."""
    generator = torch.Generator().manual_seed(seed)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    models = {"base": {name: tensor.to(dtype) for name, tensor in base.items()}}
    for reference in ("one", "two", "three"):
        models[reference] = {
            name: (tensor + 0.1 * torch.randn(tensor.shape, generator=generator)).to(dtype)
            for name, tensor in base.items()
        }
    return models


def contract_document(method: str, folder: Path, models: dict[str, Tensors]) -> Document:
    statistics = write_statistics(folder, models)
    experts = ["one", "two", "three"]
    return document_of(method, base="base", experts=experts, statistics=statistics)


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_it_gives_finite_tensors_as_stored_rounded_once(
        self, method: str, stored: torch.dtype, tmp_path: Path
    ) -> None:
        models = random_models(stored)
        document = contract_document(method, tmp_path, models)
        merged = merge(models, document)
        exact = merge(models, {**document, "out_dtype": "float32"})
        assert {name: tuple(tensor.shape) for name, tensor in merged.items()} == SHAPES
        for name, tensor in merged.items():
            assert tensor.dtype == stored
            assert bool(tensor.isfinite().all()), name
            assert torch.equal(tensor, exact[name].to(stored)), name
        # It merges: the result is none of the models.
        assert not any(torch.equal(merged[LARGEST], model[LARGEST]) for model in models.values())

    def test_it_writes_all_of_its_output_and_nothing_else(
        self, method: str, stored: torch.dtype, tmp_path: Path
    ) -> None:
        models = random_models(stored)
        document = contract_document(method, tmp_path, models)
        before = random_models(stored)
        expected = merge(models, document)
        places = {name: torch.full(shape, math.nan, dtype=stored) for name, shape in SHAPES.items()}
        for name, tensor in engine_over(models).execute(as_recipe(document), into=places.get):
            assert tensor.data_ptr() == places[name].data_ptr() or tensor.numel() == 0
            assert torch.equal(tensor, expected[name])
        for reference, tensors in models.items():
            for name, tensor in tensors.items():
                assert torch.equal(tensor, before[reference][name])

    def test_it_repeats_with_facts_and_without(
        self, method: str, stored: torch.dtype, tmp_path: Path
    ) -> None:
        models = random_models(stored)
        recipe = as_recipe(contract_document(method, tmp_path, models))
        keeping, forgetting = engine_over(models), engine_over(models, limit_bytes=0)
        first, *others = [dict(engine.execute(recipe)) for engine in (keeping, keeping, forgetting)]
        for other in others:
            assert all(torch.equal(first[name], other[name]) for name in first)


LARGEST = "layers.0.weight"


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_counts_for_methods_that_draw_and_for_no_other(
    method: str, tmp_path: Path
) -> None:
    models = random_models()
    document = contract_document(method, tmp_path, models)
    first, other = (
        merge(models, {**document, "evomerge": {**document.get("evomerge", {}), "seed": seed}})
        for seed in (1, 2)
    )
    assert torch.equal(first[LARGEST], other[LARGEST]) is not METHODS[method].random


def products_of(vectors: np.ndarray) -> np.ndarray:
    """Inner products of the rows, from 64 or more bits, as float64."""
    return (vectors @ vectors.T).astype(np.float64)


def random_vectors(count: int, spread: float, seed: int = 0) -> np.ndarray:
    """Rows around a common direction, of lengths 1 to 3; longdouble."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=50) + spread * generator.normal(size=(count, 50))
    lengths = np.linspace(1.0, 3.0, count)[:, None]
    return (lengths * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(
        np.longdouble
    )


class TestSpheres:
    @pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4, 1e-6, 1e-7])
    @pytest.mark.parametrize("t", [0.25, 0.9, 1.3])
    def test_an_arc_is_exact_however_near_its_ends_are(self, spread: float, t: float) -> None:
        """By a formula that keeps its digits: the half angle's sine is half the chord."""
        vectors = random_vectors(2, spread)
        a, b = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        angle = 2 * np.arcsin(np.linalg.norm(a - b) / 2)
        exact = np.array([np.sin((1 - t) * angle), np.sin(t * angle)]) / np.sin(angle)
        found = nuslerp_coefficients(products_of(vectors), t)
        # A cosine has an error of about 1e-16, and coefficients change with it as fast as it.
        np.testing.assert_allclose(found, exact.astype(np.float64), rtol=0.0, atol=1e-14)
        if spread >= 1.0:
            np.testing.assert_array_equal(slerp_coefficients(products_of(vectors), t), found)

    def test_slerp_is_a_line_beyond_its_cosine_and_nuslerp_is_not(self) -> None:
        products = np.array([[1.0, 0.9996], [0.9996, 1.0]])
        np.testing.assert_array_equal(slerp_coefficients(products, 0.25), [0.75, 0.25])
        assert nuslerp_coefficients(products, 0.25).sum() > 1.00005

    @pytest.mark.parametrize("cosine", [1.0, -1.0])
    def test_parallel_and_opposite_vectors_are_averaged_on_the_line(self, cosine: float) -> None:
        products = np.array([[4.0, 6.0 * cosine], [6.0 * cosine, 9.0]])
        for coefficients in (slerp_coefficients, nuslerp_coefficients):
            np.testing.assert_array_equal(coefficients(products, 0.25), [0.75, 0.25])

    def test_many_arcs_are_each_their_own(self) -> None:
        pairs = np.stack([products_of(random_vectors(2, 1.0, seed)) for seed in range(5)])
        together = nuslerp_coefficients(pairs, 0.3)
        for pair, found in zip(pairs, together, strict=True):
            np.testing.assert_array_equal(nuslerp_coefficients(pair, 0.3), found)

    @pytest.mark.parametrize("spread", [1.0, 1e-3])
    def test_multislerp_is_its_published_algorithm(self, spread: float) -> None:
        vectors, weights, eps = random_vectors(3, spread), np.array([0.5, 0.9, -0.2]), 1e-8
        norms = np.linalg.norm(vectors, axis=1)
        units = vectors / (norms + eps)[:, None]
        mean = weights @ units / np.linalg.norm(weights @ units)
        tangent = weights @ (units - np.outer(units @ mean, mean))
        size = np.linalg.norm(tangent) + eps
        exact = (mean * np.cos(size) + tangent * np.sin(size) / size) * (weights @ norms)
        found = multislerp_coefficients(products_of(vectors), weights, eps)
        assert found is not None
        np.testing.assert_allclose(
            (found @ vectors).astype(float), exact.astype(float), rtol=0.0, atol=1e-13
        )

    def test_multislerp_has_no_direction_where_unit_vectors_cancel(self) -> None:
        products = products_of(np.array([[1.0, 0.0], [-2.0, 0.0]]))
        assert multislerp_coefficients(products, np.array([0.5, 0.5]), 1e-8) is None
        assert multislerp_coefficients(products, np.array([0.5, 0.6]), 1e-8) is not None

    @pytest.mark.parametrize("spread", [0.7, 1e-3, 1e-5])
    def test_a_karcher_mean_is_where_the_pulls_of_all_cancel(self, spread: float) -> None:
        vectors = random_vectors(4, spread)
        found = karcher_coefficients(products_of(vectors), 100, 1e-12) @ vectors
        norms = np.linalg.norm(vectors, axis=1)
        assert float(np.linalg.norm(found)) == pytest.approx(float(norms.mean()), rel=1e-12)
        mean = found / np.linalg.norm(found)
        pull = np.zeros(50, dtype=np.longdouble)
        for unit in vectors / norms[:, None]:
            direction = unit - (unit @ mean) * mean
            angle = 2 * np.arcsin(np.linalg.norm(unit - mean) / 2)
            pull += angle * direction / np.linalg.norm(direction)
        assert float(np.linalg.norm(pull)) < 1e-10 * spread + 1e-11

    def test_the_karcher_mean_of_two_is_halfway_along_their_arc(self) -> None:
        vectors = random_vectors(2, 1.0)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        halfway = nuslerp_coefficients(products_of(units), 0.5)
        np.testing.assert_allclose(
            karcher_coefficients(products_of(units), 10, 1e-5), halfway, rtol=0.0, atol=1e-14
        )

    def test_vectors_without_length_count_for_the_length_of_a_karcher_mean_only(self) -> None:
        products = np.diag([4.0, 0.0])
        np.testing.assert_array_equal(karcher_coefficients(products, 10, 1e-5), [0.5, 0.0])
        np.testing.assert_array_equal(karcher_coefficients(np.zeros((2, 2)), 10, 1e-5), [0, 0])

    def test_opposite_vectors_pull_a_karcher_mean_nowhere(self) -> None:
        products = products_of(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        assert np.isfinite(karcher_coefficients(products, 10, 1e-5)).all()

    @pytest.mark.parametrize(
        ("cosine", "ratio"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.75), (-0.25, -1.5)]
    )
    def test_how_far_model_stock_goes_follows_from_the_angle(
        self, cosine: float, ratio: float
    ) -> None:
        three = np.full((3, 3), cosine)
        np.fill_diagonal(three, 1.0)
        assert stock_ratio(three) == pytest.approx(ratio)  # 3c / (1 + 2c)

    def test_model_stock_stays_at_the_base_where_its_ratio_has_no_bound(self) -> None:
        three = np.full((3, 3), -0.5)
        np.fill_diagonal(three, 1.0)
        assert stock_ratio(three) == 0.0
        assert (stock_ratio(np.stack([three, np.zeros((3, 3))])) == 0.0).all()


# Halves of small integers: variances, magnitudes and votes that are equal are common.
def coarse(seed: int, size: int = 60) -> torch.Tensor:
    return torch.randint(-2, 3, (size,), generator=torch.Generator().manual_seed(seed)) / 2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_sce_equals_a_loop_over_elements(share: float, count: int) -> None:
    base, *tuned = (coarse(seed) for seed in range(count + 1))
    vectors = np.stack([(one - base).numpy() for one in tuned]).astype(np.float64)
    variance = vectors.var(axis=0).astype(np.float32)
    selected = int(int(np.count_nonzero(variance)) * share)
    least = np.sort(variance)[-selected] if selected else np.inf
    if share < 1.0:
        vectors[:, variance < least * (1 - 1e-6)] = 0.0
    squares = (vectors**2).sum(axis=1)
    weights = squares / squares.sum() if squares.any() else np.ones(count) / count
    expected = base.double().numpy().copy()
    for element in range(base.numel()):
        own = vectors[:, element]
        positive = own.sum() >= 0
        agreeing = [i for i in range(count) if own[i] != 0 and (own[i] > 0) == positive]
        if agreeing:
            total = sum(weights[i] for i in agreeing)
            expected[element] += sum(weights[i] * own[i] for i in agreeing) / max(total, 1e-6)
    models = {f"m{i}": one for i, one in enumerate(tuned)}
    document: Document = {
        "merge_method": "sce",
        "base_model": "base",
        "models": [{"model": name} for name in models],
        "parameters": {"select_topk": share},
    }
    found = merge_one(document, base=base, **models)
    # Six roundings of values up to 4.
    np.testing.assert_allclose(found.numpy(), expected, rtol=0.0, atol=4e-6)


@pytest.mark.parametrize("method", ["ram", "ramplus_tl"])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_ram_equals_a_loop_over_elements(method: str, epsilon: float) -> None:
    base, *tuned = (coarse(seed) for seed in range(4))
    vectors = np.stack([(one - base).numpy() for one in tuned]).astype(np.float64)
    active = np.abs(vectors) > epsilon
    number = active.sum(axis=0)
    factors = np.ones(3)
    if method == "ramplus_tl":
        shared = (active & (number > 1)).sum(axis=1)
        own = (active & (number == 1)).sum(axis=1)
        factors += 0.4 * np.clip(shared / np.maximum(own, 1e-5), 0.0, 3.0)
        assert epsilon < 1.0 or len(set(factors)) == 3, "the clip is not all that shows"
    expected = base.double().numpy().copy()
    for element in range(base.numel()):
        for vector, is_active, factor in zip(vectors, active, factors, strict=True):
            if is_active[element]:
                alone = number[element] == 1
                share = factor if alone else 1.0 / number[element]
                expected[element] += vector[element] * share
    parameters = {"epsilon": epsilon}
    if method == "ramplus_tl":
        parameters |= {"r": 0.4, "alpha": 3.0}
    models = {f"m{i}": one for i, one in enumerate(tuned)}
    document: Document = {
        "merge_method": method,
        "base_model": "base",
        "models": [{"model": name} for name in models],
        "parameters": parameters,
    }
    found = merge_one(document, base=base, **models)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0.0, atol=4e-6)


def test_nearswap_takes_near_values_whole_and_far_ones_hardly() -> None:
    base = torch.zeros(5)
    other = torch.tensor([0.0, 1e-7, 0.01, 0.02, -1.0])
    document: Document = {
        "merge_method": "nearswap",
        "base_model": "base",
        "models": [{"model": "other"}],
        "parameters": {"t": 0.01},
    }
    found = merge_one(document, base=base, other=other)
    torch.testing.assert_close(found, torch.tensor([0.0, 1e-7, 0.01, 0.01, -0.01]))
    document["parameters"] = {"t": 5e-7}  # 1e-7 is read as 1e-6, of which it is half
    assert float(merge_one(document, base=base, other=other)[1]) == pytest.approx(0.5e-7)
    document["parameters"] = {"t": -1.0}
    assert torch.equal(merge_one(document, base=base, other=other), base)


def test_arcee_fusion_keeps_what_stands_out() -> None:
    """Two rows: one changed much in few places, one changed little."""
    base = torch.randn((2, 200), generator=torch.Generator().manual_seed(0))
    other = base + 1e-4
    other[0, :5] += 2.0
    document: Document = {
        "merge_method": "arcee_fusion",
        "base_model": "base",
        "models": [{"model": "other"}],
    }
    found = merge_one(document, base=base, other=other)
    torch.testing.assert_close(found[0, :5], other[0, :5])
    assert torch.equal(found[1], base[1])


def test_layers_that_no_model_changed_are_the_bases() -> None:
    base = torch.randn((4, 5), generator=torch.Generator().manual_seed(0))
    models = {name: base.clone() for name in ("base", "one", "two", "three")}
    for method in METHODS:
        if METHODS[method].needs_base or method == "multislerp":
            document = document_of(method, base="base", experts=["one", "two", "three"])
            if "evomerge" not in document:
                # Slerp's two shares are rounded each, and so are their products and the sum.
                found = merge_one(document, **models)
                torch.testing.assert_close(found, base, atol=0.0, rtol=4e-7, msg=method)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"merge_method": "linear", "models": [("one", 1.0), ("two", -1.0)]},
            r"linear: the weights of layers\.0\.weight sum to 0; give a positive sum",
        ),
        (
            {"merge_method": "multislerp", "models": [("one", 1.0), ("two", -1.0)]},
            r"multislerp: the weights of layers\.0\.weight sum to 0; give a positive sum",
        ),
        (
            {
                "merge_method": "multislerp",
                "models": [("one", 1.0), ("two", 2.0), ("three", 3.0)],
            },
            r"multislerp: the models' directions in layers\.0\.weight cancel; give other",
        ),
        (
            {"merge_method": "nuslerp", "models": [("one", 1.0)], "base_model": "two"},
            "models: nuslerp takes 2 besides a base, and the recipe names 1",
        ),
        (
            {
                "merge_method": "nuslerp",
                "models": [("one", 1.0), ("two", 2.0), ("three", 3.0)],
            },
            "models: nuslerp takes 2 besides a base, and the recipe names 3",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused_in_one_line(document: Document, message: str) -> None:
    models = [{"model": m, "parameters": {"weight": w}} for m, w in document["models"]]
    one = torch.tensor([3.0, 4.0])
    # Unit vectors times their weights: 1 + 2 - 3.
    tensors = {"one": one, "two": 2 * one, "three": -one}
    with pytest.raises(EvomergeError, match=message):
        merge_one({**document, "models": models}, **tensors)


def test_two_directions_that_cancel_are_averaged_on_the_line() -> None:
    models = [{"model": m, "parameters": {"weight": 0.5}} for m in ("one", "two")]
    one = torch.tensor([3.0, 4.0])
    found = merge_one({"merge_method": "multislerp", "models": models}, one=one, two=-3 * one)
    torch.testing.assert_close(found, -one)

"""Laws that merges keep whatever the tensors are, each through the engine."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.methods.registry import METHODS
from tests.merge.conftest import Document, Tensors
from tests.merge.memory_sources import document_of, merge, merge_one

ULP = 2.0**-23  # relative step of float32
EXPERTS = ("one", "two", "three")

seeds = st.integers(0, 2**31)
# Thousandths, for products with far smaller ones leave float32's normal range.
weights = st.integers(-2000, 2000).map(lambda thousandths: thousandths / 1000)
densities = st.sampled_from([0.0, 0.01, 0.3, 0.77, 1.0])
orders = st.permutations(range(3))
few = settings(max_examples=25)

ON_TASK_VECTORS = [name for name, method in METHODS.items() if "lambda" in method.parameters]
SPARSIFYING = [name for name in ON_TASK_VECTORS if "density" in METHODS[name].parameters]
ELECTING = ["ties", "dare_ties", "breadcrumbs_ties", "della"]


def arrays(seed: int, count: int, shape: tuple[int, ...] = (7, 13)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def sixteenths(seed: int, count: int) -> list[torch.Tensor]:
    """Multiples of 1/16 up to 4: their sums and differences are exact, in any order."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(-64, 65, (7, 13), generator=generator) / 16 for _ in range(count)]


def document(
    method: str,
    values: Sequence[float] | None = None,
    *,
    models: Sequence[str] = EXPERTS,
    base: str | None = None,
    own: Document | None = None,
    **parameters: object,
) -> Document:
    """A recipe; values: the models' weights. own: other parameters of each model."""
    of_models = [
        {"weight": value, **(own or {})} for value in (values if values is not None else ())
    ] or [own or {} for _ in models]
    written = {"lambda" if name == "lambda_" else name: v for name, v in parameters.items()}
    found: Document = {
        "merge_method": method,
        "models": [
            {"model": model, "parameters": of} for model, of in zip(models, of_models, strict=False)
        ],
        "parameters": written,
    }
    return found if base is None else {**found, "base_model": base}


def named(tensors: Sequence[torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return dict(zip(names, tensors, strict=True))


class TestOneModelAlone:
    """Weights (1, 0, ...) give back a source."""

    @given(seed=seeds, chosen=st.integers(0, 2))
    @few
    def test_an_average_of_it_is_it_to_the_last_bit(self, seed: int, chosen: int) -> None:
        models = named(arrays(seed, 3), *EXPERTS)
        alone = [float(place == chosen) for place in range(3)]
        assert torch.equal(merge_one(document("linear", alone), **models), models[EXPERTS[chosen]])
        pair = ("one", "two")
        two = [float(place == chosen % 2) for place in range(2)]
        for flat in (True, False):
            found = merge_one(document("nuslerp", two, models=pair, nuslerp_flatten=flat), **models)
            assert torch.equal(found, models[pair[chosen % 2]])

    @given(seed=seeds)
    @few
    def test_slerp_ends_at_its_two_models(self, seed: int) -> None:
        models = named(arrays(seed, 2), "base", "one")
        for t, end in ((0.0, "base"), (1.0, "one")):
            ends = document("slerp", models=("one",), base="base", t=t)
            assert torch.equal(merge_one(ends, **models), models[end])

    @given(seed=seeds, chosen=st.integers(0, 2))
    @few
    def test_multislerp_of_it_is_it_but_for_roundings(self, seed: int, chosen: int) -> None:
        models = named(arrays(seed, 4), "base", *EXPERTS)
        alone = [float(place == chosen) for place in range(3)]
        for base in (None, "base"):
            found = merge_one(document("multislerp", alone, base=base), **models)
            # eps, 1e-8 of lengths near 10, and one rounding of the coefficient.
            torch.testing.assert_close(found, models[EXPERTS[chosen]], rtol=4 * ULP, atol=4 * ULP)

    @pytest.mark.parametrize("method", [m for m in ON_TASK_VECTORS if m not in ("iso_c", "tsv")])
    @given(seed=seeds, chosen=st.integers(0, 2))
    @few
    def test_its_task_vector_leads_from_the_base_to_it(
        self, method: str, seed: int, chosen: int
    ) -> None:
        base, *tuned = arrays(seed, 4)
        alone = [float(place == chosen) for place in range(3)]
        found = merge_one(document(method, alone, base="base"), base=base, **named(tuned, *EXPERTS))
        expert = tuned[chosen]
        # Two roundings, half a step each: of the difference and of the sum.
        bound = ULP * ((expert - base).abs() + expert.abs())
        assert bool(((found - expert).abs() <= bound).all())

    @pytest.mark.parametrize("method", ["sce", "ram", "ramplus_tl"])
    @given(seed=seeds)
    @few
    def test_methods_without_weights_merge_it_to_it(self, method: str, seed: int) -> None:
        base, expert = arrays(seed, 2)
        more = {} if method == "sce" else {"epsilon": 0.0}
        if method == "ramplus_tl":
            more["r"] = 0.0
        found = merge_one(
            document(method, models=("one",), base="base", **more), base=base, one=expert
        )
        bound = 2 * ULP * ((expert - base).abs() + expert.abs())
        assert bool(((found - expert).abs() <= bound).all())

    @pytest.mark.parametrize("method", ON_TASK_VECTORS)
    def test_without_any_weight_the_base_comes_back(self, method: str) -> None:
        base, *tuned = arrays(3, 4)
        found = merge_one(
            document(method, [0.0] * 3, base="base"), base=base, **named(tuned, *EXPERTS)
        )
        assert torch.equal(found, base)

    @given(seed=seeds, power=st.integers(-4, 4))
    @few
    def test_passthrough_is_it_times_its_scale(self, seed: int, power: int) -> None:
        (model,) = arrays(seed, 1)
        one = document("passthrough", models=("one",), own={"scale": 2.0**power})
        assert torch.equal(merge_one(one, one=model), model * 2.0**power)


class TestOrder:
    """Listing the sources in another order changes nothing, but for the order of additions."""

    @pytest.mark.parametrize("method", ["task_arithmetic", "ties", "breadcrumbs_ties"])
    @given(
        seed=seeds, order=orders, density=densities, eighths=st.tuples(*[st.integers(-16, 16)] * 3)
    )
    @few
    def test_exact_sums_give_the_same_bits(
        self, method: str, seed: int, order: list[int], density: float, eighths: tuple[int, ...]
    ) -> None:
        base, *tuned = sixteenths(seed, 4)
        own = {} if method == "task_arithmetic" else {"density": density}
        models = named(tuned, *EXPERTS)
        results = [
            merge_one(
                document(
                    method,
                    [eighths[place] / 8 for place in listed],
                    models=[EXPERTS[place] for place in listed],
                    base="base",
                    own=own,
                ),
                base=base,
                **models,
            )
            for listed in (range(3), order)
        ]
        assert torch.equal(*results)

    @pytest.mark.parametrize(
        "method", ["linear", "multislerp", "karcher", "model_stock", "ram", "ramplus_tl", "sce"]
    )
    @given(seed=seeds, order=orders)
    @few
    def test_rounded_sums_differ_in_the_last_bits(
        self, method: str, seed: int, order: list[int]
    ) -> None:
        base, *tuned = arrays(seed, 4)
        models = {"base": base, **named(tuned, *EXPERTS)}
        has_weight = "weight" in METHODS[method].parameters
        more = {"epsilon": 0.5} if method.startswith("ram") else {}
        results = [
            merge_one(
                document(
                    method,
                    [(0.3, 0.9, 0.2)[place] for place in listed] if has_weight else None,
                    models=[EXPERTS[place] for place in listed],
                    base="base" if METHODS[method].needs_base else None,
                    **more,
                ),
                **models,
            )
            for listed in (range(3), order)
        ]
        # A few sums of values up to 5, in another order.
        torch.testing.assert_close(*results, rtol=0.0, atol=32 * ULP)


class TestDensityOne:
    """Methods that drop nothing are those that never drop."""

    @pytest.mark.parametrize("method", SPARSIFYING)
    @given(seed=seeds, given_weights=st.tuples(weights, weights, weights), strength=weights)
    @few
    def test_it_is_the_method_without_masks(
        self,
        method: str,
        seed: int,
        given_weights: tuple[float, ...],
        strength: float,
    ) -> None:
        base, *tuned = arrays(seed, 4)
        models = {"base": base, **named(tuned, *EXPERTS)}
        plain = "ties" if method in ELECTING else "task_arithmetic"
        own = {"density": 1.0}
        found, expected = (
            merge_one(
                document(
                    name, given_weights, base="base", own=of, lambda_=strength, normalize=False
                ),
                **models,
            )
            for name, of in ((method, own), (plain, own if plain == "ties" else {}))
        )
        assert torch.equal(found, expected)

    @given(seed=seeds)
    @few
    def test_all_selected_is_sce_without_selection(self, seed: int) -> None:
        base, *tuned = arrays(seed, 4)
        models = {"base": base, **named(tuned, *EXPERTS)}
        whole = merge_one(document("sce", base="base"), **models)
        # One element fewer than all is selected: all others are merged alike, for weights that
        # hardly change.
        almost = merge_one(document("sce", base="base", select_topk=1.0 - 1e-6), **models)
        apart = (whole - almost).abs() > 0.05
        assert int(apart.count_nonzero()) <= 1


SCALED: dict[str, dict[str, float]] = {
    "linear": {},
    "slerp": {"t": 0.3},
    "nuslerp": {},
    "multislerp": {"eps": 1e-20},
    "karcher": {"tol": 1e-7},
    "model_stock": {},
    "passthrough": {},
}
"""Methods that know no length of their own; with other values where they have a small one."""


class TestScale:
    """Models of twice the size merge into one of twice the size."""

    @pytest.mark.parametrize("method", [m for m in ON_TASK_VECTORS if m not in ("iso_c", "tsv")])
    @given(
        seed=seeds, pair=st.tuples(weights, weights), power=st.integers(-8, 8), density=densities
    )
    @few
    def test_task_vectors_scale_exactly(
        self, method: str, seed: int, pair: tuple[float, float], power: int, density: float
    ) -> None:
        """Powers of two are exact in float32, so the merged bits scale exactly with the models."""
        own = {"density": density} if "density" in METHODS[method].parameters else {}
        if method.startswith("della") and 0.0 < density < 1.0:
            own |= {"density": 0.4, "epsilon": 0.3}
        recipe = document(method, pair, models=EXPERTS[:2], base="base", own=own, lambda_=1.3)
        self.assert_scales(recipe, arrays(seed, 3), ("base", *EXPERTS[:2]), 2.0**power)

    @pytest.mark.parametrize("method", SCALED)
    @given(seed=seeds, power=st.integers(-8, 8))
    @few
    def test_averages_scale_exactly(self, method: str, seed: int, power: int) -> None:
        recipe = document_of(method, base="base", experts=EXPERTS)
        recipe["parameters"] = {**recipe["parameters"], **SCALED[method]}
        self.assert_scales(recipe, arrays(seed, 4), ("base", *EXPERTS), 2.0**power)

    @pytest.mark.parametrize("method", ["nearswap", "ram", "ramplus_tl"])
    @given(seed=seeds, power=st.integers(-6, 6))
    @few
    def test_lengths_in_parameters_scale_too(self, method: str, seed: int, power: int) -> None:
        length = "t" if method == "nearswap" else "epsilon"
        models = EXPERTS[:1] if method == "nearswap" else EXPERTS
        tensors, scale = arrays(seed, 4), 2.0**power
        # Every number here is far from nearswap's own smallest distance, 1e-6.
        plain, scaled = (
            merge_one(
                document(method, models=models, base="base", **{length: 0.25 * factor}),
                **named([tensor * factor for tensor in tensors], "base", *EXPERTS),
            )
            for factor in (1.0, scale)
        )
        torch.testing.assert_close(plain * scale, scaled, rtol=4 * ULP, atol=4 * ULP * scale)

    @staticmethod
    def assert_scales(
        recipe: Document, tensors: list[torch.Tensor], names: Sequence[str], scale: float
    ) -> None:
        plain = merge_one(recipe, **named(tensors, *names))
        scaled = merge_one(recipe, **named([tensor * scale for tensor in tensors], *names))
        assert torch.equal(plain * scale, scaled)

    @given(
        seed=seeds,
        factor=st.floats(0.01, 100.0),
        given_weights=st.tuples(*[st.floats(0.1, 2.0)] * 3),
    )
    @few
    def test_normalized_weights_have_no_scale(
        self, seed: int, factor: float, given_weights: tuple[float, ...]
    ) -> None:
        models = named(arrays(seed, 3), *EXPERTS)
        for method in ("linear", "multislerp"):
            plain, scaled = (
                merge_one(document(method, [w * by for w in given_weights]), **models)
                for by in (1.0, factor)
            )
            # Three products and two sums a side, of values up to 5 and shares up to 1.
            torch.testing.assert_close(plain, scaled, rtol=0.0, atol=16 * 5 * ULP)


class TestSpheres:
    @given(seed=seeds, t=st.floats(0.0, 1.0))
    @few
    def test_points_between_models_of_one_length_have_that_length(
        self, seed: int, t: float
    ) -> None:
        tensors = [tensor / tensor.norm() for tensor in arrays(seed, 3)]
        models = named(tensors, *EXPERTS)
        merged = [
            merge_one(document("slerp", models=("two",), base="one", t=t), **models),
            merge_one(document("nuslerp", [1.0 - t, t], models=EXPERTS[:2]), **models),
            merge_one(document("multislerp", [1.0, t, 1.0 - t]), **models),
            merge_one(document("karcher"), **models),
        ]
        for tensor in merged:
            # Coefficients are float32, the length of 91 rounded elements a little better.
            assert float(tensor.double().norm()) == pytest.approx(1.0, abs=4 * ULP)

    @given(seed=seeds, t=st.floats(0.0, 1.0))
    @few
    def test_an_arc_is_the_same_from_both_ends(self, seed: int, t: float) -> None:
        models = named(arrays(seed, 2), *EXPERTS[:2])
        there = merge_one(document("slerp", models=("two",), base="one", t=t), **models)
        back = merge_one(document("slerp", models=("one",), base="two", t=1.0 - t), **models)
        torch.testing.assert_close(there, back, rtol=0.0, atol=16 * ULP)


@given(seed=seeds, given_weights=st.tuples(*[st.floats(0.0, 2.0)] * 3).filter(sum))
@few
def test_an_average_lies_between_its_models(seed: int, given_weights: tuple[float, ...]) -> None:
    tensors = torch.stack(arrays(seed, 3))
    found = merge_one(document("linear", given_weights), **named(list(tensors), *EXPERTS))
    slack = 4 * ULP * tensors.abs().amax(dim=0)
    assert bool((found <= tensors.amax(dim=0) + slack).all())
    assert bool((found >= tensors.amin(dim=0) - slack).all())


@pytest.mark.parametrize(("rescale", "factor"), [("density", 2.5), ("none", 1.0)])
def test_rescale_is_by_density_or_not_at_all(rescale: str, factor: float) -> None:
    (expert,) = arrays(5, 1, (40, 50))
    recipe = document(
        "dare_linear", [1.0], models=("one",), base="base", own={"density": 0.4}, rescale=rescale
    )
    merged = merge_one(recipe, base=torch.zeros_like(expert), one=expert)
    kept = merged != 0.0
    # One rounding of the factor and one of the product.
    torch.testing.assert_close(merged[kept], expert[kept] * factor, rtol=2 * ULP, atol=0.0)


@pytest.mark.parametrize("method", SPARSIFYING)
def test_rescale_by_l1_keeps_the_sum_of_magnitudes(method: str) -> None:
    (expert,) = arrays(6, 1, (40, 50))
    recipe = document(
        method, [1.0], models=("one",), base="base", own={"density": 0.4}, rescale="l1"
    )
    merged = merge_one(recipe, base=torch.zeros_like(expert), one=expert)
    # Each of 2,000 elements is rounded by half a step at most, twice.
    assert float(merged.double().abs().sum()) == pytest.approx(
        float(expert.double().abs().sum()), rel=2 * ULP
    )


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_the_mean_over_seeds_is_the_task_vector(method: str) -> None:
    """Divided by the probability of an element to be kept, masked vectors are unbiased.

    The z values of 2,000 elements, each the sum of 400 draws, are independent: their squares add
    up to a chi-square of 2,000, whose normal approximation is beyond 4.9 once in a million times.
    """
    (vector,) = arrays(8, 1, (40, 50))
    density, epsilon, draws = 0.4, 0.2, 400
    own = (
        {"density": density}
        if method == "dare_linear"
        else {"density": density, "epsilon": epsilon}
    )
    ranks = vector.abs().argsort(dim=1).argsort(dim=1) / 49
    probability = torch.full_like(vector, density)
    if method == "della_linear":
        probability = density - epsilon + 2 * epsilon * ranks
    recipe = document(method, [1.0], models=("one",), base="base", own=own, rescale="none")
    total = torch.zeros_like(vector, dtype=torch.float64)
    for seed in range(draws):
        seeded = {**recipe, "evomerge": {"seed": seed}}
        total += merge_one(seeded, base=torch.zeros_like(vector), one=vector)
    found = total / draws / probability
    error = vector.abs() * ((1 - probability) / probability / draws).sqrt()
    z = (found - vector) / error
    count = z.numel()
    assert abs(float(z.square().sum()) - count) / math.sqrt(2 * count) < 4.9
    assert abs(float(z.sum()) / math.sqrt(count)) < 4.9


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


BLOCKS = {
    "evomerge.merge.kernels.threads._BLOCK": (2**10, 3 * 2**10),
    "evomerge.merge.kernels.inner_products._ROW_ELEMENTS": (2**9, 2**14),
    "evomerge.merge.methods.geometry._BLOCK_ELEMENTS": (2**9, 2**14),
    "evomerge.merge.methods.swaps._BLOCK_ELEMENTS": (2**9, 2**14),
}
"""Sizes of blocks that are set in Python; compiled ones are cut by the threads."""


@pytest.mark.parametrize(
    "method",
    [name for name, method in METHODS.items() if method.statistics is None],
)
def test_bytes_depend_on_no_cut_of_the_work(
    restored_threads: None, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """One thread or more, and blocks of any size."""
    tensors = arrays(4, 4, (203, 331) if method in ("iso_c", "tsv") else (503, 331))
    models: dict[str, Tensors] = {
        name: {"layers.0.weight": tensor}
        for name, tensor in named(tensors, "base", *EXPERTS).items()
    }
    recipes = [document_of(method, base="base", experts=EXPERTS)]
    if method == "nuslerp":
        recipes += [
            {**recipes[0], "parameters": {"nuslerp_flatten": False, "nuslerp_row_wise": by_column}}
            for by_column in (True, False)
        ]
    for recipe in recipes:
        found = []
        for threads, place in ((1, None), (2, None), (3, 0), (2, 1)):
            torch.set_num_threads(threads)
            if place is not None:
                for name, sizes in BLOCKS.items():
                    module, _, constant = name.rpartition(".")
                    monkeypatch.setattr(importlib.import_module(module), constant, sizes[place])
            found.append(merge(models, recipe)["layers.0.weight"])
        monkeypatch.undo()
        assert all(torch.equal(found[0], other) for other in found[1:])

"""Laws that the methods keep on any tensors, and slow references of their kernels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import EvomergeError
from evomerge.merge.method import Value
from evomerge.merge.methods import METHODS
from evomerge.merge.random_mask import draw
from evomerge.merge.task_vectors import elect_signs

ULP = 2.0**-23  # relative step of float32


@dataclass
class Arrays:
    """Inputs of one tensor straight from arrays; the base, where there is one, is member 0."""

    arrays: list[torch.Tensor]
    method: str
    values: dict[str, Value] = field(default_factory=dict)
    members_values: list[dict[str, Value]] = field(default_factory=list)
    name: str = "layer.weight"

    @property
    def base(self) -> int | None:
        return 0 if METHODS[self.method].needs_base else None

    @property
    def members(self) -> range:
        return range(len(self.arrays))

    @property
    def experts(self) -> tuple[int, ...]:
        return tuple(self.members)[1:] if self.base == 0 else tuple(self.members)

    def _value(self, parameter: str, member: int | None) -> Value:
        given = self.values if member is None else self.members_values[member]
        default = METHODS[self.method].parameters[parameter].default
        value = given.get(parameter, default)
        assert value is not None
        return value

    def number(self, parameter: str, member: int | None = None) -> float:
        return float(self._value(parameter, member))

    def switch(self, parameter: str) -> bool:
        return bool(self._value(parameter, None))

    def choice(self, parameter: str) -> str:
        return str(self._value(parameter, None))

    def tensor(self, member: int) -> torch.Tensor:
        return self.arrays[member]

    def task_vector(self, member: int) -> torch.Tensor:
        return self.arrays[member] - self.arrays[0]

    def draws(self, member: int) -> torch.Tensor:
        return draw(member, self.arrays[member].numel()).reshape(self.arrays[member].shape)

    def merge(self) -> torch.Tensor:
        before = [array.clone() for array in self.arrays]
        merged = METHODS[self.method].merge(self)
        for array, copy in zip(self.arrays, before, strict=True):
            assert torch.equal(array, copy), "a method wrote to a source"
            assert merged.data_ptr() != array.data_ptr(), "a method returned a source"
        assert merged.dtype == torch.float32
        assert merged.shape == self.arrays[0].shape
        return merged


def random_arrays(seed: int, count: int, shape: tuple[int, ...] = (7, 13)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


seeds = st.integers(0, 2**31)
# Thousandths, for products with far smaller ones leave float32's normal range.
weights = st.integers(-2000, 2000).map(lambda thousandths: thousandths / 1000)
densities = st.floats(0.0, 1.0)
TASK_VECTOR_METHODS = [name for name, method in METHODS.items() if "lambda" in method.parameters]


@given(seed=seeds, count=st.integers(1, 4), chosen=st.integers(0, 3))
def test_linear_with_one_weight_is_that_model(seed: int, count: int, chosen: int) -> None:
    arrays = random_arrays(seed, count)
    of_members: list[dict[str, Value]] = [
        {"weight": float(i == chosen % count)} for i in range(count)
    ]
    merged = Arrays(arrays, "linear", members_values=of_members).merge()
    assert torch.equal(merged, arrays[chosen % count])


@given(
    seed=seeds,
    scale=st.floats(0.01, 100.0),
    given_weights=st.lists(st.floats(0.1, 2.0), min_size=3, max_size=3),
)
def test_linear_when_normalized_ignores_the_scale_of_weights(
    seed: int, scale: float, given_weights: list[float]
) -> None:
    arrays = random_arrays(seed, 3)
    plain = Arrays(arrays, "linear", members_values=[{"weight": w} for w in given_weights]).merge()
    scaled = Arrays(
        arrays, "linear", members_values=[{"weight": w * scale} for w in given_weights]
    ).merge()
    # Five roundings a side: three products, two sums; then one quotient.
    bound = 16 * ULP * sum(array.abs() for array in arrays)
    assert bool(((plain - scaled).abs() <= bound).all())


def test_linear_refuses_weights_that_sum_to_nothing() -> None:
    arrays = random_arrays(0, 2)
    for pair in ([1.0, -1.0], [0.0, 0.0]):
        inputs = Arrays(arrays, "linear", members_values=[{"weight": w} for w in pair])
        with pytest.raises(EvomergeError, match=r"weights of layer\.weight sum to 0"):
            inputs.merge()
    zeros = Arrays(
        arrays, "linear", {"normalize": False}, [{"weight": 0.0}, {"weight": 0.0}]
    ).merge()
    assert torch.equal(zeros, torch.zeros_like(arrays[0]))


@given(seed=seeds)
def test_slerp_ends_at_its_two_models_and_keeps_norms(seed: int) -> None:
    a, b = random_arrays(seed, 2)
    b *= a.norm() / b.norm()
    norms = []
    for t in (0.0, 0.3, 1.0):
        norms.append(float(Arrays([a, b], "slerp", {"t": t}, [{}, {}]).merge().norm()))
    assert torch.equal(Arrays([a, b], "slerp", {"t": 0.0}, [{}, {}]).merge(), a)
    assert torch.equal(Arrays([a, b], "slerp", {"t": 1.0}, [{}, {}]).merge(), b)
    # Points on the arc between vectors of one norm have that norm; 1e-5 covers float32 sums.
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


@given(seed=seeds)
def test_task_arithmetic_with_weight_one_is_that_model(seed: int) -> None:
    base, expert = random_arrays(seed, 2)
    merged = Arrays([base, expert], "task_arithmetic", {}, [{}, {"weight": 1.0}]).merge()
    # Two roundings, half a step each: of the difference and of the sum.
    bound = ULP * ((expert - base).abs() + expert.abs())
    assert bool(((merged - expert).abs() <= bound).all())


@pytest.mark.parametrize("method", TASK_VECTOR_METHODS)
@given(seed=seeds, pair=st.tuples(weights, weights), power=st.integers(-8, 8), density=densities)
@settings(max_examples=30)
def test_task_vectors_scale_with_the_models(
    method: str, seed: int, pair: tuple[float, float], power: int, density: float
) -> None:
    """Powers of two are exact in float32, so the merged bits must scale exactly with the models."""
    if method == "task_arithmetic":
        of_members: list[dict[str, Value]] = [{}, *({"weight": w} for w in pair)]
    else:
        of_members = [{}, *({"weight": w, "density": density} for w in pair)]
    arrays = random_arrays(seed, 3)
    scale = 2.0**power
    plain = Arrays(arrays, method, {"lambda": 1.3}, of_members).merge()
    scaled = Arrays([a * scale for a in arrays], method, {"lambda": 1.3}, of_members).merge()
    assert torch.equal(plain * scale, scaled)


@given(seed=seeds, given_weights=st.lists(weights, min_size=3, max_size=3))
def test_ties_with_density_one_is_the_consensus_of_whole_vectors(
    seed: int, given_weights: list[float]
) -> None:
    arrays = random_arrays(seed, 4)
    of_members: list[dict[str, Value]] = [{}, *({"weight": w} for w in given_weights)]
    merged = Arrays(arrays, "ties", {}, of_members).merge()
    consensus = elect_signs(given_weights, [a - arrays[0] for a in arrays[1:]], True)
    expected = arrays[0] if consensus is None else arrays[0] + consensus
    assert torch.equal(merged, expected)


@pytest.mark.parametrize("method", TASK_VECTOR_METHODS)
def test_without_any_weight_the_base_comes_back(method: str) -> None:
    arrays = random_arrays(3, 3)
    merged = Arrays(arrays, method, {}, [{}, {"weight": 0.0}, {"weight": 0.0}]).merge()
    assert torch.equal(merged, arrays[0])


@pytest.mark.parametrize(("rescale", "factor"), [("density", 2.5), ("none", 1.0)])
def test_rescale_is_by_density_or_not_at_all(rescale: str, factor: float) -> None:
    base, expert = random_arrays(5, 2, (40, 50))
    of_members: list[dict[str, Value]] = [{}, {"weight": 1.0, "density": 0.4}]
    merged = Arrays(
        [torch.zeros_like(base), expert], "dare_linear", {"rescale": rescale}, of_members
    ).merge()
    kept = merged != 0.0
    # One rounding, of the quotient.
    torch.testing.assert_close(merged[kept], expert[kept] * factor, rtol=2 * ULP, atol=0.0)


def test_rescale_by_l1_keeps_the_sum_of_magnitudes() -> None:
    (expert,) = random_arrays(6, 1, (40, 50))
    for method in ("dare_linear", "ties"):
        merged = Arrays(
            [torch.zeros_like(expert), expert],
            method,
            {"rescale": "l1"},
            [{}, {"weight": 1.0, "density": 0.4}],
        ).merge()
        # Each of 2,000 elements is rounded by half a step at most, twice.
        assert float(merged.double().abs().sum()) == pytest.approx(
            float(expert.double().abs().sum()), rel=2 * ULP
        )


# Small integers make zeros, equal magnitudes and votes that end level common.
few = st.lists(st.integers(-2, 2), min_size=12, max_size=12)


@given(
    vectors=st.lists(few, min_size=1, max_size=4),
    sign=st.sampled_from([1.0, -0.5]),
    normalize=st.booleans(),
)
def test_elected_signs_equal_a_loop_over_elements(
    vectors: list[list[int]], sign: float, normalize: bool
) -> None:
    given_weights = [sign, 0.75, 0.5, 2.0][: len(vectors)]
    result = elect_signs(given_weights, [torch.tensor(v).float() for v in vectors], normalize)
    assert result is not None
    for element in range(12):
        terms = [w * v[element] for w, v in zip(given_weights, vectors, strict=True)]
        positive = sum(terms) >= 0
        agreeing = [i for i, term in enumerate(terms) if term != 0 and (term > 0) == positive]
        expected = sum(terms[i] for i in agreeing)
        divisor = sum(given_weights[i] for i in agreeing)
        if normalize and divisor != 0:
            expected /= divisor
        # The terms are exact; only the quotient is rounded.
        assert float(result[element]) == pytest.approx(float(np.float32(expected)), rel=ULP)

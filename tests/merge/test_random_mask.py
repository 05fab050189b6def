"""The hash behind DARE's masks: as documented, uniform, independent; DARE equals mergekit's law."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from mergekit.sparsify import RescaleNorm, SparsificationMethod, sparsify
from scipy import stats

from evomerge.merge.random_mask import draw, draw_key
from tests.merge.conftest import Family
from tests.merge.test_methods import Arrays

# Seeds are fixed, so these tests always say the same; the bound states how rarely a right
# implementation would have failed: two-sided normal beyond 4.9 is 1e-6.
Z_BOUND = 4.9
ELEMENTS = 200_000


def documented_draw(seed: int, place: int, name: str, index: int) -> int:
    """The docstring of random_mask.py, in Python's unbounded integers."""
    digest = hashlib.blake2b(f"{seed}\n{place}\n{name}".encode(), digest_size=8).digest()
    z = (int.from_bytes(digest, "little") + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return (z ^ (z >> 31)) >> 33


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("place", [0, 3])
def test_draws_are_the_documented_hash(seed: int, place: int) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    draws = draw(draw_key(seed=seed, place=place, tensor_name=name), 2**18 + 100)
    for index in [*range(40), *range(2**18 - 20, 2**18 + 100)]:  # on both sides of a block
        assert int(draws[index]) == documented_draw(seed, place, name, index)


def test_splitmix64_gives_its_published_sequence() -> None:
    """The first outputs for seed 1234567, as its authors' reference code prints them."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert draw(1234567, 3).tolist() == [value >> 33 for value in published]


def test_a_longer_tensor_begins_with_the_same_draws() -> None:
    assert torch.equal(draw(77, 1000), draw(77, 400_000)[:1000])


def test_draws_are_uniform() -> None:
    draws = draw(draw_key(seed=0, place=0, tensor_name="w"), ELEMENTS).numpy()
    counts = np.bincount(draws >> 23, minlength=256)
    assert draws.min() >= 0
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.9])
def test_masks_keep_their_share(density: float) -> None:
    for name in ("a", "b", "c"):
        draws = draw(draw_key(seed=5, place=1, tensor_name=name), ELEMENTS)
        kept = int((draws < int(density * 2**31)).count_nonzero())
        deviation = math.sqrt(ELEMENTS * density * (1 - density))
        assert abs(kept - ELEMENTS * density) < Z_BOUND * deviation


def test_masks_of_models_tensors_seeds_and_neighbours_are_independent() -> None:
    def mask(seed: int, place: int, name: str) -> np.ndarray:
        return draw(draw_key(seed=seed, place=place, tensor_name=name), ELEMENTS).numpy() < 2**30

    first = mask(0, 0, "a")
    for other in (mask(0, 1, "a"), mask(0, 0, "b"), mask(1, 0, "a"), np.roll(first, 1)):
        both = int(np.count_nonzero(first & other))  # ~ Binomial(n, 1/4)
        assert abs(both - ELEMENTS / 4) < Z_BOUND * math.sqrt(ELEMENTS * 3 / 16)


def test_dare_drops_and_rescales_as_mergekit_does_in_distribution() -> None:
    """Projections of many sparsified vectors have mergekit's mean and spread."""
    generator = torch.Generator().manual_seed(0)
    vector, direction = (torch.randn(500, generator=generator) for _ in range(2))
    trials, density = 2000, 0.3
    ours, theirs = [], []
    torch.manual_seed(0)
    for trial in range(trials):
        inputs = Trial(
            [torch.zeros_like(vector), vector],
            "dare_linear",
            {},
            [{}, {"weight": 1.0, "density": density}],
            name=f"trial {trial}",
        )
        ours.append(float(inputs.merge() @ direction))
        published = sparsify(
            vector, density, SparsificationMethod.random, rescale_norm=RescaleNorm.l1
        )
        theirs.append(float(published @ direction))
    assert abs(stats.ttest_ind(ours, theirs, equal_var=False).statistic) < Z_BOUND
    assert stats.levene(ours, theirs).pvalue > 1e-6
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-6


class Trial(Arrays):
    """Inputs whose draws come from the tensor's name, as the engine makes them."""

    def draws(self, member: int) -> torch.Tensor:
        key = draw_key(seed=0, place=member, tensor_name=self.name)
        return draw(key, self.arrays[member].numel())


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_a_dare_merge_keeps_the_density_of_each_vector(family: Family, method: str) -> None:
    density = 0.37
    expert = {"model": family.experts[0], "parameters": {"weight": 1.0, "density": density}}
    merged = family.merge({"merge_method": method, "base_model": family.base, "models": [expert]})
    base = family.tensors(family.base)
    kept = sum(int((merged[name] != base[name]).count_nonzero()) for name in base)
    total = sum(tensor.numel() for tensor in base.values())
    deviation = math.sqrt(total * density * (1 - density))
    assert abs(kept - total * density) < Z_BOUND * deviation

"""The hash behind DARE's masks: as documented, uniform, independent; DARE equals mergekit's law."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from mergekit.sparsify import RescaleNorm, SparsificationMethod, sparsify
from scipy import stats

from evomerge.merge.kernels import KEEP_RANDOM, Mask, absolute_sums, combine_task_vectors
from evomerge.merge.kernels.masks import draw, draw_at, draw_key, draw_limit, read_terms
from tests.merge.conftest import Family

# Seeds are fixed, so these tests always say the same; the bound states how rarely a right
# implementation would have failed: two-sided normal beyond 4.9 is 1e-6.
Z_BOUND = 4.9
ELEMENTS = 200_000


def documented_draw(seed: int, place: int, name: str, index: int) -> int:
    """The docstring of random_mask.py, in Python's unbounded integers."""
    digest = hashlib.blake2b(f"{seed}\n{place}\n{name}".encode(), digest_size=8).digest()
    key, word = int.from_bytes(digest, "little"), 2**32
    h = (index % word) ^ ((key % word + (index // word) * 0x9E3779B9) % word)
    h = (h ^ h >> 17) * 0xED5AD4BB % word
    h = ((h ^ h >> 11) + (key >> 32)) * 0xAC4C1B51 % word
    h = (h ^ h >> 15) * 0x31848BAB % word
    return h ^ h >> 14


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("place", [0, 3])
def test_draws_are_the_documented_hash(seed: int, place: int) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    draws = draw(draw_key(seed=seed, place=place, tensor_name=name), 2**18 + 100)
    for index in [*range(40), *range(2**18 - 20, 2**18 + 100)]:  # on both sides of a block
        assert int(draws[index]) == documented_draw(seed, place, name, index)


def test_past_the_first_word_indices_draw_anew() -> None:
    key = draw_key(seed=0, place=0, tensor_name="huge")
    start = 2**32 - 3
    found = draw_at(torch.arange(start, start + 6), key % 2**32, key >> 32).tolist()
    assert found == [documented_draw(0, 0, "huge", start + i) for i in range(6)]
    assert found[3:] != draw(key, 3).tolist()


def test_a_kernel_draws_the_documented_hash_at_any_index() -> None:
    """Both sides of the first word too, where a tensor of that size would be too large to make."""
    key = draw_key(seed=9, place=2, tensor_name="w")
    mask = Mask(kind=KEEP_RANDOM, key=key, probability=0.4)
    ones, zeros, terms = (np.full(8, value, dtype=np.float32) for value in (1, 0, 9))
    for start in (0, 5, 2**32, 2**33 + 8):
        read_terms(ones, zeros, np.float32(1), mask.numbers(), mask.ranks, 0, start, terms)
        expected = [
            documented_draw(9, 2, "w", start + i) < draw_limit(0.4) for i in range(terms.size)
        ]
        assert terms.astype(bool).tolist() == expected


def test_a_longer_tensor_begins_with_the_same_draws() -> None:
    assert torch.equal(draw(77, 1000), draw(77, 400_000)[:1000])


def test_draws_are_uniform() -> None:
    draws = draw(draw_key(seed=0, place=0, tensor_name="w"), ELEMENTS).numpy()
    counts = np.bincount(draws >> 24, minlength=256)
    assert draws.min() >= 0
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.9])
def test_masks_keep_their_share(density: float) -> None:
    for name in ("a", "b", "c"):
        draws = draw(draw_key(seed=5, place=1, tensor_name=name), ELEMENTS)
        kept = int((draws < draw_limit(density)).count_nonzero())
        deviation = math.sqrt(ELEMENTS * density * (1 - density))
        assert abs(kept - ELEMENTS * density) < Z_BOUND * deviation


def test_masks_of_models_tensors_seeds_and_neighbours_are_independent() -> None:
    def mask(seed: int, place: int, name: str) -> np.ndarray:
        return draw(draw_key(seed=seed, place=place, tensor_name=name), ELEMENTS).numpy() < 2**31

    first = mask(0, 0, "a")
    for other in (mask(0, 1, "a"), mask(0, 0, "b"), mask(1, 0, "a"), np.roll(first, 1)):
        both = int(np.count_nonzero(first & other))  # ~ Binomial(n, 1/4)
        assert abs(both - ELEMENTS / 4) < Z_BOUND * math.sqrt(ELEMENTS * 3 / 16)


def test_counts_in_windows_and_at_lags_vary_as_coins_do() -> None:
    """A hash of successive indices could be too even; it is not."""
    density = 0.3
    draws = draw(draw_key(seed=2, place=0, tensor_name="w"), 2**20)
    kept = (draws < draw_limit(density)).double() - density
    variance = density * (1 - density)
    for lag in (1, 2, 3, 8, 64, 1024, 4096):
        z = float((kept[:-lag] * kept[lag:]).mean()) / variance * math.sqrt(kept.numel() - lag)
        assert abs(z) < Z_BOUND
    for window in (16, 256, 4096):
        sums = kept.reshape(-1, window).sum(1)
        excess = (1 - 6 * variance) / (variance * window)  # kurtosis of a binomial beyond 3
        z = float((sums**2).mean() / (window * variance) - 1) * math.sqrt(
            sums.numel() / (2 + excess)
        )
        assert abs(z) < Z_BOUND


def test_dare_drops_and_rescales_as_mergekit_does_in_distribution() -> None:
    """Projections of many sparsified vectors have mergekit's mean and spread."""
    generator = torch.Generator().manual_seed(0)
    vector, direction = (torch.randn(500, generator=generator) for _ in range(2))
    trials, density = 2000, 0.3
    zeros, ours, theirs = torch.zeros_like(vector), [], []
    torch.manual_seed(0)
    for trial in range(trials):
        key = draw_key(seed=0, place=0, tensor_name=f"trial {trial}")
        mask = Mask(kind=KEEP_RANDOM, key=key, probability=density)
        before, after = absolute_sums(zeros, [vector, vector], [Mask(), mask])
        out = torch.empty_like(vector)
        combine_task_vectors(
            zeros,
            [vector],
            [before / after],
            [mask],
            out,
            weights=[1.0],
            left_out=0.0,
            elect=False,
            normalize=False,
            strength=1.0,
        )
        ours.append(float(out @ direction))
        published = sparsify(
            vector, density, SparsificationMethod.random, rescale_norm=RescaleNorm.l1
        )
        theirs.append(float(published @ direction))
    assert abs(stats.ttest_ind(ours, theirs, equal_var=False).statistic) < Z_BOUND
    assert stats.levene(ours, theirs).pvalue > 1e-6
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-6


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

"""Every method merges over a device, and later candidates make it wait for nothing."""

from __future__ import annotations

import pytest
import torch

from evomerge.errors import MergeError
from evomerge.evaluate import WeightLoader, build_model
from evomerge.merge.engine import MergeEngine
from evomerge.merge.methods.registry import METHODS
from evomerge.merge.tensor_cache import TensorCache
from tests.devices.rehearsal import Rehearsal
from tests.devices.scenes import Family, changed, merged_tensors
from tests.devices.tensors import Counts
from tests.merge.conftest import as_recipe
from tests.merge.memory_sources import sources_of

ROUNDING = 2**-7  # of bfloat16

ONCE_A_TENSOR = (1, 1)
BY_SUMS, BY_RANKS = (3, 6), (9, 6)
PER_TENSOR = {
    **dict.fromkeys(METHODS, ONCE_A_TENSOR),
    # Sums of three masked vectors, joined and made into factors; and ranks, for two passes.
    **dict.fromkeys(("dare_linear", "dare_ties"), BY_SUMS),
    **dict.fromkeys(("della", "della_linear"), BY_RANKS),
}
"""Copies to the device and kernels of a tensor of a later candidate, at most."""


def merged_on(device: Rehearsal, family: Family, engine: MergeEngine, method: str) -> list[Counts]:
    """Counts of two candidates in turn; the later one has the CPU's values."""
    model = build_model(
        family.base.folder, dtype="bfloat16", device=torch.device("cuda"), trust_remote_code=False
    )
    loader = WeightLoader(model)
    found = []
    for number in range(2):
        recipe = changed(family.document(method), number)
        with device.counting() as counts:
            loader.fill(engine.execute(recipe, into=loader.destination))
        found.append(counts)
    for name, expected in MergeEngine(family.sources).execute(recipe):
        place = loader.destination(name)
        assert place is not None and place.is_cuda
        assert torch.allclose(place.cpu(), expected, rtol=ROUNDING, atol=1e-6), name
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_later_candidate_waits_for_nothing(
    method: str, family: Family, device: Rehearsal
) -> None:
    engine = MergeEngine(family.sources, device="cuda")
    first, later = merged_on(device, family, engine, method)
    assert later.waits == later.downloads == 0
    copies, kernels = PER_TENSOR[method]
    tensors = merged_tensors(method, family)
    assert later.uploads <= copies * tensors
    assert later.launches <= kernels * tensors
    assert later.live_bytes == first.live_bytes


@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_thresholds_without_a_table_stay_on_the_device(
    method: str, family: Family, device: Rehearsal
) -> None:
    engine = MergeEngine(family.sources, cache=TensorCache(limit_bytes=2**24), device="cuda")
    # Counts of magnitudes fit, tables of all of them do not.
    engine._cache.keeps = lambda key, size_bytes: False  # type: ignore[method-assign]
    _, later = merged_on(device, family, engine, method)
    assert later.waits == later.downloads == 0
    assert later.uploads <= merged_tensors(method, family)


def test_sources_without_room_are_copied_each_time(family: Family) -> None:
    with Rehearsal(memory_bytes=0) as device:
        engine = MergeEngine(family.sources, device="cuda")
        first, later = merged_on(device, family, engine, "linear")
    tensors = merged_tensors("linear", family)
    assert first.uploads == later.uploads == (3 + 1) * tensors
    assert later.live_bytes == first.live_bytes


def test_numbers_beyond_float16_are_found_in_one_copy(device: Rehearsal) -> None:
    weights = torch.full((4, 4), 300.0)
    broken = {"layers.0.fine": weights, "layers.1.large": weights * 200}
    models = {"base": broken, "one": {name: tensor * 2 for name, tensor in broken.items()}}
    document = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": "one", "parameters": {"weight": 1.0}}],
        "out_dtype": "float16",
    }
    engine = MergeEngine(sources_of(models), device="cuda")
    with device.counting() as counts, pytest.raises(MergeError, match=r"layers\.1\.large"):
        list(engine.execute(as_recipe(document)))
    assert counts.downloads == 1

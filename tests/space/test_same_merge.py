"""An encoded recipe merges the same tensors, by the merge engine."""

import numpy as np
import pytest
import torch

from evomerge.merge.engine import MergeEngine
from evomerge.search.baselines import (
    BASE,
    DARE_TIES,
    SLERP,
    TASK_ARITHMETIC,
    TIES,
    UNIFORM_SOUP,
    Baselines,
)
from evomerge.sources import check_compatible, open_source
from evomerge.space import build_space
from tests.checkpoints import save_fine_tuned, save_tiny_llama

# The same sum in float32 by another order of operations; tensors are of order 0.02 to 1.
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    base = save_tiny_llama(folder / "base", seed=0, layers=3, hidden=16)
    experts = [
        save_fine_tuned(folder / name, of=base, seed=seed)
        for seed, name in enumerate(("one", "two"), start=1)
    ]
    return {str(path): open_source(str(path), where="test") for path in (base, *experts)}


RANGES = {
    "weight": {
        "low": 0.0,
        "high": 1.0,
        "layers": "each",
        "components": ["attention", "mlp", "rest"],
    },
    "density": {"low": 0.1, "high": 1.0, "layers": {"knots": 2}},
}
SPACES = {
    "task_arithmetic": {"weight": RANGES["weight"]},
    "linear": {"weight": RANGES["weight"]},
    "ties": RANGES,
    "dare_ties": RANGES,
    "slerp": {"t": RANGES["weight"]},
}
EXPRESSED = {
    "task_arithmetic": {BASE, "one", "two", UNIFORM_SOUP, TASK_ARITHMETIC},
    "linear": {"one", "two", UNIFORM_SOUP},
    "ties": {BASE, "one", "two", TIES},
    "dare_ties": {BASE, "one", "two", DARE_TIES},
    "slerp": {"one", "two", SLERP},
}


@pytest.mark.parametrize("method", sorted(SPACES))
def test_baselines_that_a_space_expresses_merge_the_same(models, method):
    base, *sources = models
    structure = check_compatible(list(models.values()))
    space = build_space(
        {"method": method, "parameters": SPACES[method]},
        base=base,
        sources=sources,
        structure=structure,
        out_dtype="float32",
        seed=4,
    )
    engine = MergeEngine(models)
    baselines = Baselines(base=base, sources=tuple(sources), out_dtype="float32", seed=4)
    expressed = set()
    for baseline in baselines.stage({}):
        genome = space.encode(baseline.recipe)
        if genome is None:
            continue
        expressed.add(baseline.label)
        meant = dict(engine.execute(baseline.recipe))
        for name, tensor in engine.execute(space.decode(genome)):
            torch.testing.assert_close(tensor, meant[name], atol=ROUNDING, rtol=0.0)
    assert expressed == EXPRESSED[method]


@pytest.mark.parametrize("method", sorted(SPACES))
def test_random_genomes_can_be_executed(models, method):
    base, *sources = models
    structure = check_compatible(list(models.values()))
    space = build_space(
        {"method": method, "parameters": SPACES[method]},
        base=base,
        sources=sources,
        structure=structure,
        out_dtype="bfloat16",
        seed=4,
    )
    genome = np.random.default_rng(0).random(len(space.genes))
    merged = dict(MergeEngine(models).execute(space.decode(genome)))
    assert set(merged) == set(structure.shapes)
    assert all(torch.isfinite(tensor).all() for tensor in merged.values())

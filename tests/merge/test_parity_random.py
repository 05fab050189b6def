"""Methods with random masks against mergekit 0.1.5 as published, which draws in another way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from mergekit.merge_methods import get as published_method
from mergekit.merge_methods.base import TensorGroup

from evomerge.merge.methods.registry import METHODS
from tests.architectures import write_tensors
from tests.merge.conftest import (
    TOLERANCE,
    Document,
    Family,
    Published,
    make_family,
    worst_difference,
)
from tests.merge.parity_cases import experts

RANDOM = [name for name, method in METHODS.items() if method.random]


@pytest.mark.parametrize("method", RANDOM)
def test_random_methods_equal_mergekit_over_the_same_masks(
    architecture: Family, published: Published, tmp_path: Path, method: str
) -> None:
    """mergekit cannot draw as we do: it is given models from which our masks are taken out."""
    family, weights = architecture, [0.36787944, 0.51328571, 0.22817391]
    switches = {"rescale": False, "normalize": method.startswith("della")}
    drawn = {
        "merge_method": method,
        "base_model": family.base,
        "models": experts(family, weight=weights, density=[0.41, 0.67, 0.3]),
        "parameters": {"lambda": 1.37, **switches},
        "evomerge": {"seed": 5},
    }
    masked = [mask_out(family, drawn, place, tmp_path / f"{place}") for place in range(3)]
    given = {
        "merge_method": "task_arithmetic" if method.endswith("linear") else "ties",
        "base_model": family.base,
        "models": experts(Family(family.base, tuple(masked), {}), weight=weights),
        "parameters": {"lambda": 1.37, **switches},
    }
    assert worst_difference(family.merge(drawn), published(given)) < TOLERANCE


def mask_out(family: Family, document: Document, place: int, folder: Path) -> str:
    """Save an expert with the base's elements wherever the document's draw drops its own."""
    models = [
        {**model, "parameters": {**model["parameters"], "weight": float(at == place)}}
        for at, model in enumerate(document["models"])
    ]
    plain = {"lambda": 1.0, "rescale": False, "normalize": False}
    alone = family.merge({**document, "models": models, "parameters": plain})
    base, expert = family.tensors(family.base), family.tensors(family.experts[place])
    kept = {
        name: torch.where(alone[name] != base[name], tensor, base[name])
        for name, tensor in expert.items()
    }
    share = sum(int((kept[n] != base[n]).sum()) for n in kept) / sum(
        t.numel() for t in kept.values()
    )
    assert 0.1 < share < 0.8, "some are dropped and some are not"
    shutil.copytree(family.experts[place], folder)
    write_tensors(folder, kept)
    return str(folder)


@pytest.mark.parametrize("method", RANDOM)
def test_random_methods_rescaled_equal_mergekit_in_the_mean(
    one_tensor: Family, method: str
) -> None:
    """Over many draws; both means have a standard error of their own, which bounds the difference.

    The L1 rescaling of the two is drawn with the mask, so there is no closed form. Each of 1,152
    elements fails with a probability of 2e-8 (5.6 standard errors), so the test with 3e-5.
    """
    document = {
        "merge_method": method,
        "base_model": one_tensor.base,
        "models": experts(one_tensor, 2, weight=[0.7, -0.4], density=[0.41, 0.67]),
    }
    draws = 200
    ours = torch.stack(
        [one_tensor.merge({**document, "evomerge": {"seed": seed}})[NAME] for seed in range(draws)]
    )
    torch.manual_seed(0)
    theirs = torch.stack([published_tensor(one_tensor, document) for _ in range(draws)])
    error = ((ours.var(dim=0) + theirs.var(dim=0)) / draws).sqrt()
    apart = (ours.mean(dim=0) - theirs.mean(dim=0)).abs()
    assert bool((apart <= 5.6 * error + 1e-6).all())
    # And they vary alike: the ratio of the two mean variances is near 1.
    assert float(ours.var(dim=0).mean() / theirs.var(dim=0).mean()) == pytest.approx(1.0, abs=0.05)


NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def one_tensor(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return make_family(tmp_path_factory.mktemp("one"), experts=2, layers=1, hidden=24)


def published_tensor(family: Family, document: Document) -> torch.Tensor:
    """One tensor by mergekit's method itself, without its files."""
    method = published_method(document["merge_method"])
    references = [family.base, *family.experts[:2]]
    group = TensorGroup.from_tensors(
        [family.tensors(reference)[NAME] for reference in references],
        ids=references,
        base_index=0,
    )
    own = [model["parameters"] for model in document["models"]]
    merged: torch.Tensor = method.merge_group(
        group,
        normalize=method.default_normalize,
        rescale=method.default_rescale,
        int8_mask=False,
        epsilon=dict.fromkeys(references, 0.15),
        **{"lambda": 1.0},
        **{
            name: {model: of[name] for model, of in zip(references[1:], own, strict=True)}
            for name in ("weight", "density")
        },
    )
    return merged

"""Every method meets every subset, and nothing is a cell twice."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from evomerge.grid import cells_of, label_of, pin_grid
from evomerge.grid.cells import subsets_of
from evomerge.grid.specification import ExpertsSpec
from evomerge.search.baselines import Baselines
from tests.grid.grids import EVOLVED, make_grid


def test_only_what_draws_masks_or_searches_has_a_cell_for_each_seed(models: Path) -> None:
    grid = make_grid(models, methods=["linear", "dare_ties", EVOLVED], seeds=[3, 5, 8])
    cells = cells_of(grid, out_dtype="float32")
    seeds = {
        label: [cell.seed for cell in cells if label_of(cell.method) == label]
        for label in ("uniform soup", "DARE-TIES", "evolved")
    }
    subsets = 3 + 1  # pairs, and all three
    assert seeds["uniform soup"] == [None] * subsets
    assert seeds["DARE-TIES"] == seeds["evolved"] == [3, 5, 8] * subsets


def test_methods_without_parameters_are_the_baselines_of_a_search(models: Path) -> None:
    names = ["linear", "task_arithmetic", "ties", "dare_ties"]
    grid = make_grid(models, methods=names, seeds=[7])
    base, sources = grid.models.base, grid.models.sources
    for cell in cells_of(grid, out_dtype="bfloat16"):
        chosen = tuple(sources[place] for place in cell.experts)
        usual = Baselines(base=base, sources=chosen, out_dtype="bfloat16", seed=7).stage({})
        assert cell.recipe in [one.recipe for one in usual if one.label == label_of(cell.method)]


def test_given_parameters_are_the_recipes(models: Path) -> None:
    dense = {"label": "dense", "method": "ties", "parameters": {"weight": 1.0, "density": 0.9}}
    grid = make_grid(models, methods=[dense], experts={"sizes": [2]})
    recipe = cells_of(grid, out_dtype="float32")[0].recipe
    assert recipe is not None
    assert (recipe.merge_method, recipe.base_model) == ("ties", grid.models.base)
    assert [entry.model for entry in recipe.models] == list(grid.models.sources[:2])
    assert recipe.parameters == {"weight": 1.0, "density": 0.9}


def test_all_subsets_of_a_size_are_there_in_order() -> None:
    assert subsets_of(ExpertsSpec(), 2, 5) == tuple(itertools.combinations(range(5), 2))


@pytest.mark.parametrize("seed", range(5))
def test_a_draw_of_more_subsets_keeps_those_of_fewer(seed: int) -> None:
    few, many = (subsets_of(ExpertsSpec(subsets=n, seed=seed), 4, 8) for n in (5, 9))
    assert len(set(few)) == 5 and len(set(many)) == 9
    assert set(few) <= set(many)
    assert list(many) == sorted(many)


def test_seeds_draw_different_subsets() -> None:
    drawn = {subsets_of(ExpertsSpec(subsets=3, seed=seed), 4, 8) for seed in range(20)}
    assert len(drawn) > 15


def test_pinning_changes_no_cell_but_for_paths(models: Path) -> None:
    grid = make_grid(models, methods=["linear", EVOLVED])
    pinned = pin_grid(grid)
    assert pin_grid(pinned) == pinned
    assert isinstance(pinned.methods[1].search_space, dict)
    shapes = [
        [
            (label_of(cell.method), cell.experts, cell.seed)
            for cell in cells_of(g, out_dtype="float32")
        ]
        for g in (grid, pinned)
    ]
    assert shapes[0] == shapes[1]

"""What an optimiser cannot do is its row's to say, and refused when a job or a grid is read."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from evomerge.errors import JobError
from evomerge.grid.specification import parse_grid
from evomerge.job import OptimizerSpec
from evomerge.optimize import choose_population, make_pareto_optimizer
from evomerge.optimize.registry import AUTO, BUILT_IN


@pytest.mark.parametrize("mode", ["single", "pareto"])
def test_the_last_that_auto_may_take_suits_any_genes(mode):
    last = BUILT_IN[AUTO[mode][-1]]
    spec = OptimizerSpec(population=4)
    assert all(last.suits(spec, genes=n, switches=k) for n, k in ((1, 0), (1, 1), (9999, 0)))
    assert last.is_for(2) and last.is_for(8)
    assert all(BUILT_IN[name].serves(mode) for name in AUTO[mode])


@pytest.mark.parametrize("algorithm", [n for n, row in BUILT_IN.items() if row.serves("pareto")])
@pytest.mark.parametrize("n", [1, 16, 501])
def test_the_population_of_a_front_is_known_before_its_optimiser_is_made(algorithm, n):
    """The budget is checked against it."""
    binary = np.zeros(n, dtype=bool)
    for spec in (OptimizerSpec(algorithm=algorithm), OptimizerSpec()):
        known = choose_population(spec, binary, objectives=2)
        if n < 501:
            optimizer = make_pareto_optimizer(spec, starts=np.full((1, n), 0.5), objectives=2)
            assert optimizer.population == known
        assert known == {1: 5 if spec.algorithm == "como_cat_cma_es" else 4, 16: 12, 501: 22}[n]


def test_a_grids_search_by_an_optimiser_for_fronts_is_refused_in_a_line():
    grid = {
        "name": "grid",
        "models": {"base": "base", "sources": ["one", "two"]},
        "held_in": [
            {"task": "a", "metric": "acc", "expert": "one"},
            {"task": "b", "metric": "acc", "expert": "two"},
        ],
        "methods": [
            "linear",
            {
                "label": "searched",
                "search_space": "one_weight_per_model",
                "budget": {"candidates": 8},
                "optimizer": {"algorithm": "nsga2"},
            },
        ],
    }
    with pytest.raises(JobError, match=r"methods\.1\.optimizer\.algorithm: nsga2 is not for mode"):
        parse_grid(yaml.safe_dump(grid), where="grid.yaml")
    grid["methods"][1]["optimizer"] = {"algorithm": "tpe"}
    assert parse_grid(yaml.safe_dump(grid), where="grid.yaml").methods[1].optimizer is not None

import numpy as np
import pytest

from evomerge.job import OptimizerSpec
from evomerge.optimize import (
    choose_algorithm,
    choose_population,
    default_population,
    make_optimizer,
)
from evomerge.optimize.algorithm import MANY_GENES
from evomerge.optimize.cat_cma_es import CatCmaEs
from evomerge.optimize.cma_es import CmaEs
from evomerge.optimize.lra_cma_es import LraCmaEs
from evomerge.optimize.registry import BUILT_IN, MOST_CONTINUOUS

OWN = sorted(row.name for row in BUILT_IN.values() if row.serves("single"))


def switches(binary: int, continuous: int):
    return np.arange(binary + continuous) < binary


@pytest.mark.parametrize(
    ("binary", "chosen"),
    [
        (None, "cma_es"),
        (switches(0, MANY_GENES - 1), "cma_es"),
        (switches(0, MANY_GENES), "lra_cma_es"),
        (switches(0, MOST_CONTINUOUS), "lra_cma_es"),
        (switches(0, MOST_CONTINUOUS + 1), "cma_es"),
        (switches(8, 0), "cat_cma_es"),
        (switches(34, 36), "cat_cma_es"),
        (switches(34, MOST_CONTINUOUS), "cat_cma_es"),
        (switches(34, MOST_CONTINUOUS + 1), "cma_es"),
    ],
)
def test_auto_is_what_measured_best_for_the_genes(binary, chosen):
    assert choose_algorithm(OptimizerSpec(), binary) == chosen


@pytest.mark.parametrize("algorithm", OWN)
def test_a_named_algorithm_is_taken_whatever_the_genes(algorithm):
    spec = OptimizerSpec(algorithm=algorithm)
    assert choose_algorithm(spec) == choose_algorithm(spec, switches(4, 4)) == algorithm


@pytest.mark.parametrize(
    ("count", "continuous", "kind"), [(0, 4, CmaEs), (0, 40, LraCmaEs), (4, 4, CatCmaEs)]
)
def test_auto_is_made_as_it_is_chosen(count, continuous, kind):
    binary = switches(count, continuous)
    assert isinstance(make_optimizer(OptimizerSpec(), start=binary * 1.0, binary=binary), kind)


@pytest.mark.parametrize("binary", [np.ones(3, bool), np.ones(4)])
def test_a_mask_of_another_shape_or_type_is_a_mistake_of_the_caller(binary):
    with pytest.raises(AssertionError, match="binary"):
        make_optimizer(OptimizerSpec(), start=np.zeros(4), binary=binary)


def test_many_coefficients_at_half_rates_take_twice_the_default_population() -> None:
    """Switches do not, nor does any other algorithm; a number that the job gives stands."""
    plain = OptimizerSpec(algorithm="cma_es")
    for n, population in ((2, 6), (15, 12), (16, 24), (192, 38)):
        assert choose_population(plain, np.zeros(n, dtype=np.bool_)) == population
    switches = np.arange(40) < 20
    assert choose_population(plain, switches) == default_population(40)
    other = OptimizerSpec()
    assert choose_population(other, np.zeros(40, dtype=np.bool_)) == default_population(40)
    named = OptimizerSpec(algorithm="cma_es", population=8)
    assert choose_population(named, np.zeros(40, dtype=np.bool_)) == 8

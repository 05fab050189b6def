"""Every registered optimiser, through the same contract."""

import pytest

from evomerge.optimize import default_population
from evomerge.optimize.registry import BUILT_IN
from tests.optimize.contract import Contract

OWN = sorted(row.name for row in BUILT_IN.values() if row.serves("single"))


@pytest.fixture(params=OWN)
def algorithm(request) -> str:
    return request.param


@pytest.fixture(params=[name for name in OWN if name != "random"])
def learner(request) -> str:
    return request.param


class TestOptimizers(Contract):
    """Evomerge's own."""


def test_default_population_is_that_of_the_tutorial():
    # Hansen 2016, table 1.
    assert [default_population(n) for n in (1, 2, 10, 100)] == [4, 6, 10, 17]

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.space.routes.layout import Slots

A, B = "models/a", "models/b"


def slots(depths=(3, 2), passes=2, least=2, most=99) -> Slots:
    ends = zip((A, B), depths, strict=True)
    layers = [(model, layer) for model, depth in ends for layer in range(depth)]
    total = len(layers) * passes
    return Slots(layers=tuple(layers), passes=passes, least=least, most=min(most, total))


def taken_by_definition(of: Slots, values: np.ndarray) -> tuple[int, ...]:
    """One place after another, as the rule is said."""
    worth = dict(zip(of.switches, values, strict=True))
    inside = {slot for slot in of.switches if worth[slot] > 0.5}

    def rank(slot: int) -> tuple[float, bool, int]:
        return (worth[slot], of.own(slot), -slot)

    while len(inside) + 2 > of.most:
        inside.remove(min(inside, key=rank))
    while len(inside) + 2 < of.least:
        inside.add(max(set(of.switches) - inside, key=rank))
    return (0, *sorted(inside), of.closing)


def test_models_of_different_depths_lie_end_to_end():
    found = slots()
    assert [found.layer_at(slot) for slot in range(5)] == [(A, 0), (A, 1), (A, 2), (B, 0), (B, 1)]
    assert [found.layer_at(slot) for slot in range(5, 10)] == list(found.layers)
    assert [found.pass_of(slot) for slot in (0, 4, 5, 9)] == [1, 1, 2, 2]
    assert (found.count, found.depth, found.closing) == (10, 3, 2)


def test_all_places_but_the_two_of_every_route_are_switches():
    assert slots().switches == (1, 3, 4, 5, 6, 7, 8, 9)


def test_a_route_closes_with_the_leading_models_last_layer_whatever_comes_before():
    values = np.zeros(8)
    values[[1, 7]] = 1.0
    assert slots().taken(values) == (0, 3, 9, 2)


def test_the_middle_is_out():
    assert slots().taken(np.full(8, 0.5)) == (0, 2)
    assert slots().taken(np.full(8, np.nextafter(0.5, 1.0))) == (0, 1, *range(3, 10), 2)


def test_of_too_many_the_highest_stay_and_of_equals_the_own_and_the_earlier():
    values = np.array([0.6, 0.7, 0.9, 0.7, 0.6, 0.7, 0.1, 0.6])  # of places 1, 3, 4, ... 9
    assert slots(most=4).taken(values) == (0, 3, 4, 2)
    assert slots(most=5).taken(values) == (0, 3, 4, 5, 2)
    assert slots(most=6).taken(values) == (0, 3, 4, 5, 7, 2)
    assert slots(most=7).taken(values) == (0, 1, 3, 4, 5, 7, 2)
    assert slots(depths=(4, 2), most=4).taken(np.ones(10)) == (0, 1, 2, 3)


def test_of_too_few_the_highest_of_the_others_come_in_the_own_and_the_earlier_first():
    values = np.array([0.3, 0.4, 0.9, 0.2, 0.3, 0.4, 0.5, 0.3])
    assert slots(least=3).taken(values) == (0, 4, 2)
    assert slots(least=4).taken(values) == (0, 4, 8, 2)
    assert slots(least=5).taken(values) == (0, 3, 4, 8, 2)
    assert slots(least=7).taken(values) == (0, 1, 3, 4, 7, 8, 2)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 5),
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_what_is_taken_is_what_the_rule_says(depth, other, passes, seed, coarse):
    random = np.random.default_rng(seed)
    total = (depth + other) * passes
    least, most = np.sort(random.integers(2, total + 1, 2))
    found = slots((depth, other), passes, int(least), int(most))
    values = random.random(len(found.switches))
    values = np.round(4 * values) / 4 if coarse else values
    taken = found.taken(values)
    assert taken == taken_by_definition(found, values)
    assert least <= len(taken) <= most


@pytest.mark.parametrize(
    ("layers", "places"),
    [
        ([(A, 0), (A, 2)], (0, 2)),
        ([(A, 0), (A, 1), (A, 2)], (0, 1, 2)),
        ([(A, 0), (A, 1), (A, 1), (A, 2)], (0, 1, 6, 2)),
        ([(A, 0), (B, 1), (A, 0), (A, 2)], (0, 4, 5, 2)),
        ([(A, 0), (A, 2), (A, 2)], (0, 7, 2)),  # the closing place is not to be had before
        ([(A, 0), (A, 0), (A, 2)], (0, 5, 2)),
        ([(A, 0), (B, 1), (B, 0), (A, 2)], (0, 4, 8, 2)),
        ([(A, 0), (A, 1), (A, 1), (A, 1), (A, 2)], None),
        ([(A, 0), (A, 0), (A, 0), (A, 2)], None),
        ([(A, 0), (B, 2), (A, 2)], None),
        ([(A, 1), (A, 2)], None),
        ([(A, 0), (B, 1)], None),
        ([(A, 0)], None),
        ([], None),
    ],
)
def test_a_routes_places_are_the_earliest_that_are_in_order(layers, places):
    assert slots().earliest(layers) == places

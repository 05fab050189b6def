"""Shared beginnings: the order that saves most, and states kept where they save most."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.route import Hop
from evomerge.route.prefixes import PrefixStates, order_by_prefix

Route = tuple[Hop, ...]

ROUTES = st.lists(
    st.lists(
        st.sampled_from([Hop("a", 0), Hop("a", 1), Hop("a", 1, 0.5), Hop("b", 1)]),
        min_size=1,
        max_size=6,
    ).map(tuple),
    max_size=12,
)
STATE_BYTES = 16


def of(letters: str) -> Route:
    """A route with a layer for each letter."""
    return tuple(Hop(letter, 0) for letter in letters)


def alike(first: Route, second: Route) -> int:
    """Hops that two routes begin with alike, each keeping one to itself."""
    depth = 0
    while depth < min(len(first), len(second)) - 1 and first[depth] == second[depth]:
        depth += 1
    return depth


def states_of(prefix: Route, batch: bytes) -> torch.Tensor:
    """A tensor of STATE_BYTES that no other prefix or batch has."""
    seed = random.Random(f"{prefix} {batch!r}").randrange(2**31)
    return torch.full((STATE_BYTES // 8,), seed, dtype=torch.int64)


def run(
    shared: PrefixStates, routes: Sequence[Route], batches: Sequence[bytes] = (b"one", b"two")
) -> list[int]:
    """Follow the routes over the batches; the hops that each route did not make."""
    saved = []
    for route in routes:
        shared.follow(route)
        skipped = 0
        for batch in batches:
            depth, states = shared.deepest(batch)
            assert (states is None) == (depth == 0)
            if states is not None:
                assert torch.equal(states, states_of(route[:depth], batch))
            for wanted in shared.wanted:
                assert 0 < wanted < len(route)
                if wanted > depth:
                    shared.keep(wanted, batch, states_of(route[:wanted], batch))
                kept = sum(
                    value.nbytes for found in shared._kept.values() for value in found.values()
                )
                assert shared.size_bytes == kept <= shared.limit_bytes
            skipped += depth
        saved.append(skipped)
    return saved


@given(ROUTES)
def test_routes_that_begin_alike_follow_each_other(routes: list[Route]) -> None:
    order = order_by_prefix(routes)
    assert sorted(order) == list(range(len(routes)))
    ordered = [routes[place] for place in order]
    for depth in range(1, 7):
        beginnings = [route[:depth] for route in ordered if len(route) >= depth]
        runs = [
            one
            for place, one in enumerate(beginnings)
            if place == 0 or beginnings[place - 1] != one
        ]
        assert len(runs) == len(set(runs))
    for route in set(routes):
        places = [place for place in order if routes[place] == route]
        assert places == sorted(places)
    assert order_by_prefix(ordered) == list(range(len(routes)))


@given(ROUTES)
@settings(max_examples=60)
def test_with_room_every_shared_hop_is_made_once(routes: list[Route]) -> None:
    shared = PrefixStates(limit_bytes=10**6)
    shared.expect(routes)
    saved = run(shared, routes)
    for place, route in enumerate(routes):
        assert saved[place] == 2 * max((alike(one, route) for one in routes[:place]), default=0)
    shared.follow(of("z"))
    assert shared.size_bytes == 0  # what serves no route to come is dropped


@given(ROUTES, st.integers(0, 6 * STATE_BYTES))
@settings(max_examples=60)
def test_states_are_right_and_within_the_limit_however_small(
    routes: list[Route], limit_bytes: int
) -> None:
    shared = PrefixStates(limit_bytes=limit_bytes)
    ordered = [routes[place] for place in order_by_prefix(routes)]
    shared.expect(ordered)
    run(shared, ordered)


def test_what_saves_most_is_kept() -> None:
    deep_first = ["abcdef", "abcdeg", "abcdeh", "abx"]  # at 5: 2 routes, at 2: one
    shallow_first = ["abcdef", "abcdeg", "abx", "aby", "abz", "abw"]  # at 2: 5 routes, at 5: one
    for letters, depth in ((deep_first, 5), (shallow_first, 2)):
        routes = [of(each) for each in letters]
        shared = PrefixStates(limit_bytes=STATE_BYTES)
        shared.expect(routes)
        shared.follow(routes[0])
        assert shared.wanted == (2, 5)
        for wanted in shared.wanted:
            shared.keep(wanted, b"one", states_of(routes[0][:wanted], b"one"))
        shared.follow(routes[1])
        assert shared.deepest(b"one")[0] == depth


def test_states_that_save_as_much_stay() -> None:
    """Else every batch would make the one before give way, for nothing."""
    shared = PrefixStates(limit_bytes=STATE_BYTES)
    shared.expect([of("abc"), of("abd")])
    shared.follow(of("abc"))
    for batch in (b"one", b"two"):
        shared.keep(2, batch, states_of(of("ab"), batch))
    shared.follow(of("abd"))
    assert [shared.deepest(batch)[0] for batch in (b"one", b"two")] == [2, 0]


def test_what_is_kept_is_a_copy() -> None:
    """Some layers add to what they read in place."""
    shared = PrefixStates(limit_bytes=STATE_BYTES)
    shared.expect([of("abc"), of("abd")])
    shared.follow(of("abc"))
    states = states_of(of("ab"), b"one")
    shared.keep(2, b"one", states)
    states.zero_()
    shared.follow(of("abd"))
    _, found = shared.deepest(b"one")
    assert found is not None and torch.equal(found, states_of(of("ab"), b"one"))


def test_only_states_that_routes_to_come_begin_at_are_wanted() -> None:
    shared = PrefixStates(limit_bytes=10**6)
    shared.expect([of("abcd"), of("abxy"), of("aq")])
    shared.follow(of("abcd"))
    assert shared.wanted == (1, 2)
    shared.follow(of("abxy"))
    assert shared.wanted == (1,)
    shared.follow(of("aq"))
    assert shared.wanted == ()


def test_routes_that_were_not_expected_mean_other_items() -> None:
    routes = [of("abcd"), of("abce"), of("abcf")]
    shared = PrefixStates(limit_bytes=10**6)
    shared.expect(routes)
    run(shared, routes[:1])
    shared.expect(routes[1:])  # the rest of them
    assert shared.size_bytes == 2 * STATE_BYTES
    shared.expect(routes)
    assert shared.size_bytes == 0


@pytest.mark.parametrize("limit_bytes", [0, STATE_BYTES - 1])
def test_without_room_nothing_is_kept(limit_bytes: int) -> None:
    routes = [of("abcd"), of("abce")]
    shared = PrefixStates(limit_bytes=limit_bytes)
    shared.expect(routes)
    assert run(shared, routes) == [0, 0]

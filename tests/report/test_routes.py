from __future__ import annotations

import itertools

import pytest

from evomerge.report.routes import COLUMN_WIDTH, END_GAP, Drawn, jump, lay_route, visits_of
from evomerge.report.slot_history import Known
from evomerge.route import Hop

MODELS = (
    Known(name="a", reference="/a", depth=4),
    Known(name="b", reference="/b", depth=4),
    Known(name="c", reference=None, depth=4),
)
HOPS = (
    Hop("/a", 0),
    Hop("/a", 2, 1.5),
    Hop("/b", 1),
    Hop("/b", 2),
    Hop("/b", 2, 0.5),
    Hop("/a", 3),
)


def drawn(hops: tuple[Hop, ...] = HOPS) -> Drawn:
    return lay_route(hops, MODELS)


def test_a_visit_ends_where_the_route_leaves_the_model_or_does_not_rise() -> None:
    layers = [[(hop.model, hop.layer) for hop in visit] for visit in visits_of(HOPS)]
    assert layers == [
        [("/a", 0), ("/a", 2)],
        [("/b", 1), ("/b", 2)],
        [("/b", 2)],
        [("/a", 3)],
    ]


def test_every_hop_is_at_the_height_of_its_layer() -> None:
    assert [stop.y for stop in drawn().stops] == [0, 2, 1, 2, 2, 3]
    assert [stop.hop for stop in drawn().stops] == list(HOPS)


def test_every_visit_has_a_lane_of_its_own_within_its_column() -> None:
    quarter = COLUMN_WIDTH / 4
    lanes = [-quarter, -quarter, 1 - quarter, 1 - quarter, 1 + quarter, quarter]
    assert [stop.x for stop in drawn().stops] == pytest.approx(lanes)
    assert drawn().lanes == 2


def test_a_column_that_is_visited_once_has_its_line_in_the_middle() -> None:
    assert [stop.x for stop in drawn((Hop("/a", 0), Hop("/a", 3))).stops] == [0.0, 0.0]


def test_the_line_leads_from_the_embedding_to_the_head_without_a_gap() -> None:
    route = drawn()
    first, last = route.stops[0], route.stops[-1]
    assert first.line[0] == (first.x, -END_GAP)
    assert route.exit == ((last.x, last.y), (last.x, 3 + END_GAP))
    for before, after in itertools.pairwise(route.stops):
        assert after.line[0] == pytest.approx((before.x, before.y))
        assert after.line[-1] == pytest.approx((after.x, after.y))


def test_only_a_line_to_another_visit_jumps() -> None:
    assert [stop.jumps for stop in drawn().stops] == [False, False, True, False, True, True]


def test_a_jump_leaves_upwards_and_arrives_from_below() -> None:
    points = jump((0.0, 8.0), (1.0, 2.0))
    assert points[1][1] > 8.0
    assert points[-2][1] < 2.0
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(points))


def test_columns_count_used_and_repeated_layers() -> None:
    a, b, c = drawn().columns
    assert (a.uses, a.used, a.repeated) == ((1, 0, 1, 1), 3, 0)
    assert (b.uses, b.used, b.repeated) == ((0, 1, 2, 0), 2, 1)
    assert (c.uses, c.used) == ((0, 0, 0, 0), 0)


def test_a_model_that_no_genome_names_has_a_column_too() -> None:
    route = lay_route((Hop("/x/a", 0), Hop("/x/d", 5), Hop("/x/a", 1)), ())
    assert [(one.model.name, one.model.depth) for one in route.columns] == [("a", 2), ("d", 6)]

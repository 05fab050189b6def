"""A front as the status and the report show it."""

from __future__ import annotations

from evomerge.report.front import front_figures, front_parts, rows_of
from tests.search.test_points import AXES, SCORES, make_front


def test_more_than_two_axes_are_drawn_pair_by_pair() -> None:
    assert [figure.title for figure in front_figures(make_front())] == [
        "text against sums",
        "text against sums",
        "text against text",
    ]
    assert len(front_figures(make_front(axes=AXES[:2]))) == 1


def test_a_figure_has_every_point_with_its_test_interval_on_both_axes() -> None:
    front = make_front()
    figure = front_figures(front)[0]
    traces = figure.spec["data"]
    assert [trace["marker"]["symbol"] for trace in traces] == ["diamond"] * 3
    first = front.points[0].test
    x, y = AXES[0].of(first), AXES[1].of(first)
    assert (traces[0]["x"][0], traces[0]["y"][0]) == (x.value, y.value)
    assert traces[0]["error_x"]["array"][0] == x.high - x.value
    assert traces[0]["error_y"]["arrayminus"][0] == y.value - y.low
    assert all(label in figure.description for label in SCORES)


def test_an_axis_that_is_better_when_lower_runs_the_other_way_and_says_so() -> None:
    layout = front_figures(make_front())[0].spec["layout"]
    low, high = layout["xaxis"]["range"]
    assert low < high
    low, high = layout["yaxis"]["range"]
    assert low > high
    assert "lower is better" in layout["yaxis"]["title"]["text"]


def test_a_row_says_scores_domination_and_broken_constraints() -> None:
    row = rows_of(make_front())[0]
    assert not row.constraints_kept
    line = str(row)
    assert line.startswith("g0001-i000: sums/acc 0.300 [0.200, 0.400]; text/nats 1.000")
    assert line.endswith("dominates second, breaks a constraint")
    assert row.to_json()["validation"]["sums/acc"]["value"] == 0.9


def test_a_start_on_the_front_is_shown_once() -> None:
    parts = front_parts(make_front())
    assert [row.label for row in parts["points"]] == list(SCORES)
    assert parts["rivals"] == []

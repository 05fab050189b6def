"""Which point of a front is meant, and what a front says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.errors import RunError
from evomerge.evaluate.candidate import CandidateKey
from evomerge.evaluate.inference.intervals import Interval
from evomerge.evaluate.inference.summary import Role, ScoreSummary
from evomerge.recipe import Recipe, RecipeModel
from evomerge.search.results.claim import LeftOut
from evomerge.search.results.front import Axis, Front, Point
from evomerge.search.results.points import choose_point, read_outcome
from evomerge.search.results.selection import ConstraintCheck

AXES = (
    Axis(task="sums", metric="acc", higher_is_better=True),
    Axis(task="text", metric="nats", higher_is_better=False),
    Axis(task="text", metric="acc", higher_is_better=True),
)
SCORES = {"g0001-i000": (0.9, 3.0, 0.2), "g0002-i001": (0.6, 2.0, 0.5), "first": (0.3, 1.0, 0.6)}


def exactly(value: float) -> Interval:
    return Interval(value=value, low=value - 0.1, high=value + 0.1)


def summary(label: str, role: Role, scores: tuple[float, ...]) -> ScoreSummary:
    tasks: dict[str, dict[str, Interval]] = {}
    for axis, score in zip(AXES, scores, strict=True):
        tasks.setdefault(axis.task, {})[axis.metric] = exactly(score)
    return ScoreSummary(label=label, role=role, score=exactly(scores[0]), tasks=tasks)


def point(place: int, label: str) -> Point:
    role: Role = "parent" if label == "first" else "finalist"
    # Test scores are the reverse of the validation scores, so that a mix-up shows.
    tested = list(SCORES.values())[::-1][place]
    return Point(
        label=label,
        role=role,
        recipe=Recipe(
            merge_method="linear", models=(RecipeModel(model="a", parameters={"weight": 1.0}),)
        ),
        genome=None if role == "parent" else (0.25, 0.5),
        test_key=CandidateKey(-2, place),
        validation=summary(label, role, SCORES[label]),
        test=summary(label, role, tested),
        constraints=(ConstraintCheck(task="sums", metric="acc", score=0.5, wanted=0.6),),
        dominates=("second",) if place == 0 else (),
        surely=(),
    )


def make_front(**changes: object) -> Front:
    front = Front(
        axes=AXES,
        points=tuple(point(place, label) for place, label in enumerate(SCORES)),
        rivals=(summary("first", "parent", SCORES["first"]),),
        validated=(summary("first", "parent", SCORES["first"]),),
        volume=0.5,
        gain=Interval(value=0.2, low=0.1, high=0.3),
        over_starts=Interval(value=0.1, low=0.05, high=0.3),
        feasible=True,
        left_out=(LeftOut(label="x", role="finalist", split="test", reason="it failed"),),
        items={"validation": {"sums": 4, "text": 4}, "test": {"sums": 8, "text": 8}},
    )
    return replace(front, **changes)  # type: ignore[arg-type]


def test_a_front_after_a_raised_budget_says_that_its_test_items_were_seen() -> None:
    assert "unseen test items" in make_front().headline()
    again = make_front(tested_before=3)
    assert "on test items that were seen before" in again.headline()
    assert "3 selections of this search scored models" in " ".join(again.lines())
    assert read_outcome(again.to_json()) == again


@pytest.mark.parametrize(
    ("wish", "label"),
    [
        ("first", "first"),
        ("g0002-i001", "g0002-i001"),
        ("sums=1", "g0001-i000"),
        ("sums=0.7,text/acc=0.3", "g0001-i000"),
        ("sums=0.1,text/acc=0.9", "first"),
        # In nats lower is better: 0.6 - 0.5 x 2.0 against 0.9 - 0.5 x 3.0 and 0.3 - 0.5 x 1.0.
        ("sums=1,text/nats=0.5", "first"),
        # The others are sums and nats: 0.6 - 2.0 is below 0.3 - 1.0.
        ("text/acc>=0.4", "first"),
        # The others are sums and acc: 0.6 + 0.5 is above 0.3 + 0.6.
        (" text/nats <= 2.5 ", "g0002-i001"),
        ("text/nats<=2.5,text/acc>=0.55", "first"),
    ],
)
def test_a_wish_is_met_by_validation_scores(wish: str, label: str) -> None:
    assert choose_point(make_front(), wish).point.label == label


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("g0009-i000", "no point of the front; it has g0001-i000, g0002-i001, first"),
        ("sum=1", "sum is no axis of the front; write one of sums, text/nats, text/acc"),
        ("text=1", "text is several axes"),
        ("sums=much", "much is no number"),
        ("sums=nan", "nan is no number"),
        ("sums=-1", "-1 is below 0"),
        ("sums=0", "the weights are all 0"),
        ("sums=1,sums=2", "sums/acc is weighed twice"),
        ("sums>=0.95", "no point reaches it on the validation items; the nearest is g0001-i000"),
        ("text/nats>=1", "text/nats is better when lower; write <="),
        ("sums>=0.1,text/acc", "text/acc is no TASK>=SCORE"),
        ("sums>=0.1, >=0.2", ">=0.2 is no TASK>=SCORE"),
        ("sums>= ", "is no TASK>=SCORE"),
        (f"sums>=0.1,{' ' * 10**5}", "is no TASK>=SCORE"),  # would take hours by a pattern
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_in_a_line(wish: str, said: str) -> None:
    with pytest.raises(RunError) as refused:
        choose_point(make_front(), wish)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_front_is_read_back_equal() -> None:
    front = make_front()
    assert read_outcome(front.to_json()) == front


@pytest.mark.parametrize(
    ("changes", "first", "better"),
    [
        ({}, "Gained +0.200", True),
        ({"over_starts": Interval(value=0.1, low=-0.1, high=0.3)}, "Not settled", True),
        ({"gain": Interval(value=-0.1, low=-0.2, high=0.3)}, "No gain", False),
        ({"feasible": False}, "No gain: nothing keeps the constraints", False),
        ({"points": (point(2, "first"),)}, "No gain: no candidate is on the front", False),
    ],
)
def test_a_gain_is_claimed_only_over_parents_and_starts(
    changes: dict[str, object], first: str, better: bool
) -> None:
    front = make_front(**changes)
    assert front.headline().startswith(first)
    assert front.better is better


def test_what_the_front_is_not_is_told_too() -> None:
    lines = make_front().lines()
    assert "that is settled for none" in lines[0]
    assert lines[1] == "Left out: x, which could not be scored on the test items: it failed."
    assert sum("NOT KEPT" in line for line in lines) == 3
    assert sum(line.startswith("  first ") for line in lines) == 1


def test_the_command_names_a_point_that_the_search_found() -> None:
    front = make_front(points=(point(2, "first"), point(0, "g0001-i000")))
    assert front.export_command(Path("run")).endswith("--point g0001-i000")

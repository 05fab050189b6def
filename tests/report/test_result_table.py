"""The table at the end of a search: each task beside each parent, losses marked."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from evomerge.evaluate.inference.intervals import Interval
from evomerge.evaluate.inference.summary import Role, ScoreSummary
from evomerge.report.result_table import HEADING, show_result
from evomerge.search.results.selection import Selection
from tests.report.studies import make_selection

ROWS = [("sums", "acc"), ("poems", "perplexity")]
DIRECTIONS = {"sums": {"acc": True}, "poems": {"perplexity": False}}


def summary(label: str, role: Role, acc: float, perplexity: float) -> ScoreSummary:
    def at(value: float) -> Interval:
        return Interval(value=value, low=value, high=value)

    tasks = {"sums": {"acc": at(acc)}, "poems": {"perplexity": at(perplexity)}}
    return ScoreSummary(label=label, role=role, score=at(acc), tasks=tasks)


def selection(*parents: ScoreSummary) -> Selection:
    return replace(make_selection(), test=(summary("mean", "winner", 0.5, 9.0), *parents))


def shown(outcome: Selection, *, width: int = 80, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        highlight=False,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
    )
    show_result(outcome, ROWS, DIRECTIONS, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_loss_against_a_parent_has_its_sign_whichever_way_the_metric_is_better() -> None:
    parents = (summary("first", "parent", 0.612, 9.5), summary("second", "parent", 0.4, 8.0))
    heading, labels, sums, poems = shown(selection(*parents)).splitlines()
    assert heading == HEADING
    assert labels.split() == ["winner", "first", "second"]
    assert sums.split() == ["sums/acc", "0.500", "0.612", "(−0.112)", "0.400"]
    assert poems.split()[-4:] == ["9.000", "9.500", "8.000", "(−1.000)"]
    assert "(lower is better)" in poems


def test_only_a_loss_has_a_colour_and_only_in_a_terminal() -> None:
    parents = (summary("first", "parent", 0.612, 9.5), summary("second", "parent", 0.4, 9.5))
    assert "\x1b" not in shown(selection(*parents))
    coloured = shown(selection(*parents), colour=True)
    assert coloured.count("\x1b[31m") == 1
    assert "\x1b[31m0.612 (−0.112)" in coloured


def test_nothing_in_a_label_acts_on_a_terminal() -> None:
    assert "\x1b" not in shown(selection(summary("\x1b[2Jfirst", "parent", 0.4, 9.5)))


def test_parents_that_do_not_fit_come_in_further_blocks() -> None:
    parents = [summary(f"parent number {i}", "parent", 0.4, 9.5) for i in range(6)]
    text = shown(selection(*parents))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("sums/acc") > 1
    assert all(f"parent number {i}" in text for i in range(6))

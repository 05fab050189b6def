"""What is shown of a grid: its tables, its page, and how it goes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from evomerge.evaluate.candidate import (
    Candidate,
    CandidateKey,
    Cost,
    Evaluation,
    Failed,
    Scored,
    TaskItems,
)
from evomerge.evaluate.inference.intervals import Interval
from evomerge.grid import GridOutcome, ModelOutcome, Normalised, Row, Work
from evomerge.grid.page import normalised_figure, render_grid
from evomerge.grid.progress import GridProgress
from evomerge.grid.tables import grid_lines, grid_markdown
from evomerge.job import BudgetSpec
from evomerge.search.baselines import only
from evomerge.study import Study, create_study
from tests.report.studies import make_job


def interval(value: float) -> Interval:
    return Interval(value=value, low=value - 0.1, high=value + 0.1)


def row(method: str, experts: int, held_in: float | None, *, failed: int = 0) -> Row:
    return Row(
        method=method,
        experts=experts,
        merges=3,
        failed=failed,
        normalised=Normalised(
            held_in=None if held_in is None else interval(held_in), held_out=None
        ),
        spread_held_in=0.05,
        spread_held_out=None,
    )


@pytest.fixture
def outcome() -> GridOutcome:
    merge = ModelOutcome(
        label="a|b: first + second",
        role="merge",
        method="a|b",
        experts=("first", "second"),
        seed=None,
        candidate="g0001-i000",
        means={"sums": {"acc": 0.25}},
        normalised=Normalised(held_in=interval(0.5), held_out=None),
        failure=None,
    )
    return GridOutcome(
        name="sums",
        split="test",
        items={"sums": 1200},
        held_in={"sums/acc": "first"},
        held_out=(),
        models=(merge,),
        rows=(row("a|b", 2, 0.5), row("a|b", 3, None, failed=3), row("<i>", 2, 0.75, failed=1)),
        notes=("two\nlines",),
    )


def test_a_table_has_the_numbers_and_says_what_is_missing(outcome: GridOutcome) -> None:
    lines = grid_lines(outcome)
    assert lines[1].split() == ["a|b", "2", "3", "0.500", "[0.400,", "0.600]", "0.050", "–", "–"]
    assert lines[2].split()[:6] == ["a|b", "3", "0", "of", "3", "–"]
    assert lines[3].split()[:5] == ["<i>", "2", "2", "of", "3"]
    assert "note: two lines" in lines
    assert any("1,200 test items of 1 task" in line for line in lines)


def test_markdown_keeps_its_columns_whatever_a_method_is_called(outcome: GridOutcome) -> None:
    rows = [line for line in grid_markdown(outcome).splitlines() if line.startswith("|")]
    cells = [len(re.split(r"(?<!\\)\|", line)) for line in rows]
    assert cells == [9] * 5 + [5] * 2 + [6] * 3
    assert "| a\\|b | 2 | 3 | 0.500 [0.400, 0.600] |" in rows[2]
    assert rows[-1].endswith("| 0.250 |")


def test_nothing_in_a_name_shapes_the_markdown(outcome: GridOutcome) -> None:
    evil = "\x1b[2J<img src=x> ![x](http://a)"
    models = tuple(replace(model, label=evil) for model in outcome.models)
    page = grid_markdown(replace(outcome, models=models, notes=(evil,), name=evil))
    assert not any(sign in page for sign in ("\x1b", "<img", "]("))
    assert page.count("&lt;img") == len(models) + 2 + sum(m.role != "merge" for m in models)


def test_the_page_draws_a_line_for_each_method_and_escapes_its_name(outcome: GridOutcome) -> None:
    figure = normalised_figure(outcome, "Held-in", "share", "held_in")
    first, second = figure.spec["data"]
    assert (list(first["y"]), list(second["y"])) == ([0.5], [0.75])
    assert abs(first["x"][0] - second["x"][0]) < 0.5, "both stand at two experts"
    page = render_grid(outcome)
    drawn = re.search(r'id="figures">(.*?)</script>', page)
    assert drawn is not None and len(json.loads(drawn[1])) == 1, "nothing is held out"
    assert "&lt;i&gt;" in page and "<i>" not in page.split("<script")[0]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with create_study(tmp_path / "run", make_job()) as study:
        yield study


def cell(place: int, items: int) -> Candidate:
    return Candidate(
        key=CandidateKey(1, place),
        kind="cell",
        label=f"merge {place}",
        recipe=only("base", out_dtype="float32"),
        items={"sums": tuple(range(items))},
    )


class Clock:
    """Seconds that pass when told."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def score(study: Study, candidate: Candidate, *, fails: bool = False) -> None:
    ids = candidate.items["sums"]
    scored = Scored(tasks={"sums": TaskItems(ids=ids, metrics={"acc": (1.0,) * len(ids)})})
    outcome: Evaluation = Failed(reason="no\nlogits", cost=Cost()) if fails else scored
    study.record(candidate, outcome, score=None if fails else 1.0)


def test_it_says_what_is_to_be_done_and_how_long_the_rest_takes(study: Study) -> None:
    said, clock = io.StringIO(), Clock()
    progress = GridProgress(study, console=Console(file=said, width=200), clock=clock)
    budgets = (BudgetSpec(candidates=40),) * 2 + (BudgetSpec(hours=3),)
    progress.announce(Work(models=2, items=400, recorded=7, searches=budgets))
    candidates = [cell(0, 300), cell(1, 100)]
    with progress.scoring(candidates) as observe:
        for candidate, fails in zip(candidates, (False, True), strict=True):
            clock.now_s += 900.0
            score(study, candidate, fails=fails)
            observe("recorded", candidate.key)
    lines = said.getvalue().splitlines()
    assert lines[0].endswith(
        ": 2 models to score on 400 items; 7 taken from the record; "
        "2 searches of up to 40 candidates to run; 1 search of up to 3 worker hours to run"
    )
    # 300 of 400 items took 15 minutes, so the last 100 take 5.
    assert lines[1:] == [
        "1 of 2 models scored, about 5 min left",
        "merge 1 failed: no logits",
        "2 of 2 models scored",
    ]


def test_a_terminal_gets_a_bar_that_goes_away(study: Study) -> None:
    said = io.StringIO()
    console = Console(file=said, width=100, force_terminal=True)
    with GridProgress(study, console=console).scoring([cell(0, 10)]) as observe:
        score(study, cell(0, 10))
        observe("recorded", CandidateKey(1, 0))
    assert "100%" in said.getvalue() and "1 of 1 model scored" in said.getvalue()
    assert "\n" not in said.getvalue().rsplit("\x1b[2K", maxsplit=1)[-1]


def test_many_models_get_about_ten_lines(study: Study) -> None:
    said, clock = io.StringIO(), Clock()
    candidates = [cell(place, 5) for place in range(60)]
    progress = GridProgress(study, console=Console(file=said, width=100), clock=clock)
    with progress.scoring(candidates) as observe:
        for candidate in candidates:
            clock.now_s += 1.0
            score(study, candidate)
            observe("recorded", candidate.key)
    assert len(said.getvalue().splitlines()) == 10

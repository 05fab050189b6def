"""What the page says of the claim: every difference that decides it, and what it rests on."""

from __future__ import annotations

import html
import re
from dataclasses import replace

from evomerge.evaluate.inference.intervals import Interval
from evomerge.evaluate.inference.simultaneous import Difference
from evomerge.report.html import render_report
from evomerge.search.results.claim import Comparison, LeftOut
from evomerge.search.results.selection import Selection
from evomerge.study import Study
from evomerge.study.notes import SELECTION
from tests.report.studies import make_selection


def difference(value: float, half: float, p: float) -> Difference:
    interval = Interval(value=value, low=value - half, high=value + half)
    return Difference(interval=interval, p=p)


def compared(*, soup: float) -> Selection:
    """A winner 0.12 above the best parent, and `soup` above the soup that was the best start."""
    against = (
        Comparison(label="base", role="base", difference=difference(0.28, 0.05, 0.0001)),
        Comparison(label="arithmetic", role="parent", difference=difference(0.16, 0.05, 0.0001)),
        Comparison(label="japanese", role="parent", difference=difference(0.12, 0.05, 0.0002)),
        Comparison(label="uniform soup", role="baseline", difference=difference(soup, 0.05, 0.31)),
    )
    return replace(
        make_selection(after=3),
        gain=against[2].difference.interval,
        gain_over_soup=against[3].difference.interval,
        comparisons=against,
        on_validation=replace(against[3], difference=difference(0.07, 0.04, 0.002)),
        best_start="uniform soup",
        best_untuned="uniform soup",
        left_out=(LeftOut(label="TIES", role="baseline", split="validation", reason="too <big>"),),
        objective_items=200,
    )


def words_of(study: Study, selection: Selection) -> str:
    study.note(SELECTION, selection.to_json())
    page = render_report(study, structure=None)
    body = page[page.index("<main>") : page.index("</main>")]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_a_gain_over_parents_that_is_none_over_the_best_start_says_so_first(
    searched: Study,
) -> None:
    words = words_of(searched, compared(soup=0.02))
    assert words.startswith(
        "evomerge report kana-arithmetic Not settled Not settled: the winner (average of the "
        "second half's means) scores +0.120 [+0.070, +0.170] against the best parent (japanese) on "
        "unseen test items, and +0.020 [-0.030, +0.070] against the best that the search began "
        "with (uniform soup). About 1,250 test items would settle a difference of this size; "
        "there were 200."
    )
    assert words_of(searched, compared(soup=-0.02)).startswith(
        "evomerge report kana-arithmetic No gain No gain: "
    )
    assert words_of(searched, compared(soup=0.08)).startswith(
        "evomerge report kana-arithmetic Gain Gained +0.120 [+0.070, +0.170]: "
    )


def test_every_difference_has_its_interval_and_its_p(searched: Study) -> None:
    words = words_of(searched, compared(soup=0.02))
    table = words[words.index("The winner minus each") :]
    assert "japanese parent +0.120 +0.070 to +0.170 0.0002" in table
    assert "uniform soup best start +0.020 −0.030 to +0.070 0.31" in table


def test_validation_and_what_was_left_out_are_told(searched: Study) -> None:
    words = words_of(searched, compared(soup=0.02))
    assert (
        "On the validation items the winner is +0.070 [+0.030, +0.110] against uniform soup, the "
        "best that the search began with (adjusted p 0.002, for 3 candidates compared there)."
    ) in words
    assert "Left out: TIES, which could not be scored on the validation items: too <big>" in words

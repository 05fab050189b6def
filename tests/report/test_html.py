from __future__ import annotations

import html
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import StorageError
from evomerge.report.html import render_report, write_report
from evomerge.search.results.selection import ConstraintCheck, Selection
from evomerge.study import Study
from evomerge.study.notes import SELECTION
from tests.report.studies import (
    MERGES,
    QUALITY,
    SOURCES,
    MadeUpSearch,
    make_selection,
    make_structure,
    merge_of,
    run_through,
)

LIBRARY = re.compile(r"<script>/\*\*\s+\* plotly\.js .*?</script>", re.DOTALL)


def page_of(study: Study, selection: Selection | None = None, **options: Any) -> str:
    """The page without the library of figures."""
    study.note(SELECTION, selection.to_json() if selection else None)
    options.setdefault("structure", make_structure())
    page = render_report(study, **options)
    stripped, count = LIBRARY.subn("", page)
    assert count == 1
    return stripped


def figures_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)
    assert found
    figures: list[dict[str, Any]] = json.loads(found[1])
    return figures


def words_of(page: str) -> str:
    """The text that people read, in order."""
    body = page[page.index("<main>") : page.index("</main>")]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def finished(searched: Study) -> str:
    return page_of(searched, make_selection(after=3))


def test_it_loads_nothing(finished: str) -> None:
    assert re.search(r"<(link|img|iframe|base)\b|\bsrc=|@import|url\(|fetch\(", finished) is None
    assert "http" not in finished


def test_the_outcome_comes_first(finished: str) -> None:
    words = words_of(finished)
    headline = make_selection(after=3).headline()
    assert words.startswith(f"evomerge report kana-arithmetic Gain {headline}")
    assert "+0.120 +0.080 to +0.160" in words
    assert "over 200 test items" in words  # of the two objectives; what is only reported is apart


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.12, "Gain"), (0.02, "Not settled"), (-0.02, "No gain")]
)
def test_no_gain_is_said_in_the_first_line(searched: Study, gain: float, verdict: str) -> None:
    selection = make_selection(gain=gain, after=3)
    words = words_of(page_of(searched, selection))
    assert words.startswith(f"evomerge report kana-arithmetic {verdict} {selection.headline()}")


def test_a_constraint_that_is_not_kept_stands_beside_the_headline(searched: Study) -> None:
    broken = ConstraintCheck(task="kana_counting", metric="exact_match", score=0.4, wanted=0.58)
    page = page_of(searched, replace(make_selection(after=3), constraints=(broken,)))
    words = words_of(page[: page.index("</header>")] + "</main>")
    assert "Constraint not kept: kana_counting exact_match is 0.400, wanted at least 0.580" in words


def test_every_drawing_has_its_place(finished: str) -> None:
    figures = figures_of(finished)
    # The search; all objectives and four tasks; weights of attention, MLP and norms.
    assert len(figures) == 1 + 5 + 3
    places = re.findall(r'id="figure-(\d+)" role="img" aria-label="[^"]+"', finished)
    assert places == [str(place) for place in range(len(figures))]


def test_every_baseline_is_a_named_line(finished: str, searched: Study) -> None:
    search = figures_of(finished)[0]
    labels = [note["text"] for note in search["layout"]["annotations"]]
    assert sorted(labels) == sorted(
        label if len(label) <= 24 else f"{label[:23].rstrip()}…" for label in (*QUALITY, *MERGES)
    )
    scores = {trial.score for trial in searched.trials_of("baseline")}
    assert {note["y"] for note in search["layout"]["annotations"]} == scores


def test_names_of_lines_do_not_touch(finished: str) -> None:
    layout = figures_of(finished)[0]["layout"]
    low, high = layout["yaxis"]["range"]
    height = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    places = sorted(
        (high - note["y"]) / (high - low) * height + note["ay"] for note in layout["annotations"]
    )
    gaps = [below - above for above, below in itertools.pairwise(places)]
    assert min(gaps) > 15.99
    assert places[0] >= 0.0
    assert places[-1] <= height


def test_the_curve_has_a_mean_and_a_best_for_each_generation(
    finished: str, searched: Study
) -> None:
    *_, best, mean = figures_of(finished)[0]["data"]
    for place in range(3):
        scores = [
            trial.score
            for trial in searched.trials
            if trial.key.generation == place + 1 and trial.score is not None
        ]
        assert best["y"][place] == max(scores)
        assert mean["y"][place] == pytest.approx(sum(scores) / len(scores))
    assert mean["x"] == [2.5, 6.5, 10.5]


def test_intervals_reach_from_low_to_high(finished: str) -> None:
    combined = figures_of(finished)[1]
    winner = make_selection(after=3).test[0].score
    (first, *others) = combined["data"]
    assert first["y"] == ["winner"]
    assert first["x"] == [winner.value]
    assert first["error_x"]["array"] == [winner.high - winner.value]
    assert first["error_x"]["arrayminus"] == [winner.value - winner.low]
    assert [other["y"][0] for other in others] == ["base", "arithmetic", "japanese", "uniform soup"]


def test_finalists_share_a_scale_from_the_lowest_end_to_the_highest(finished: str) -> None:
    bar = r'<i style="left: ([\d.-]+)%; right: ([\d.-]+)%"></i><u style="left: ([\d.-]+)%'
    ends = re.findall(bar, finished)
    left, right, middle = ([float(place) for place in places] for places in zip(*ends, strict=True))
    assert len(ends) == len(make_selection().validation)
    assert min(left) == min(right) == 0.0
    for low, rest, at in zip(left, right, middle, strict=True):
        assert low < at < 100 - rest


def test_every_colour_is_there_in_light_and_dark(finished: str) -> None:
    used = set(re.findall(r"var\((--[\w-]+)\)", finished)) - {"--tone"}
    light, dark = re.findall(r":root \{(.*?)\}", finished, re.DOTALL)
    for name in used:
        assert f"{name}:" in light, name
        assert f"{name}:" in dark, name


def test_the_recipe_reads_back_from_the_page(finished: str) -> None:
    blocks = [html.unescape(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", finished, re.S)]
    assert make_selection(after=3).recipe.to_yaml() in blocks
    assert any(block.startswith("evomerge export ") for block in blocks)


def test_costs_add_up(finished: str, searched: Study) -> None:
    items = sum(trial.cost.items for trial in searched.trials)
    row = re.search(r'<tr class="sum">.*?</tr>', finished)
    assert row
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[0])
    assert cells[:4] == ["all", str(len(searched.trials)), "1", f"{items:,}"]


def test_without_a_structure_the_coefficients_are_left_to_the_recipe(searched: Study) -> None:
    page = page_of(searched, make_selection(after=3), structure=None)
    assert len(figures_of(page)) == 6
    assert "the recipe below holds them" in words_of(page)


def test_flat_coefficients_are_a_table(searched: Study) -> None:
    recipe = merge_of(dict(zip(SOURCES, (0.25, 0.75), strict=True)))
    page = page_of(searched, replace(make_selection(after=3), recipe=recipe))
    assert len(figures_of(page)) == 6
    assert "weight every layer: all parts of a layer 0.250 0.750" in words_of(page)


def test_an_extended_search_says_that_the_selection_is_older(searched: Study) -> None:
    words = words_of(page_of(searched, make_selection(after=2)))
    assert "3 generations are recorded, and this selection was made after 2" in words


def test_a_search_that_has_not_begun_has_a_page(new_study: Study) -> None:
    words = words_of(page_of(new_study))
    assert words.startswith("evomerge report kana-arithmetic Not started Nothing has been scored")
    assert figures_of(page_of(new_study)) == []


def test_an_unfinished_search_says_how_far_it_is(new_study: Study) -> None:
    search = MadeUpSearch(new_study, generations=3, population=4)
    run_through(search.baselines())
    words = words_of(page_of(new_study))
    assert "Not finished No winner yet: 0 of 12 candidates so far" in words
    run_through(search.generation(1))
    words = words_of(page_of(new_study))
    assert "4 of 12 candidates so far" in words
    assert "Mean of generation 1, 4 scored" in words
    assert "evomerge resume" in words


def test_a_search_of_failures_alone_has_a_page(new_study: Study) -> None:
    failing = MadeUpSearch(new_study, population=1)
    run_through(failing.generation(11))  # place 0 of generation 11 fails
    assert new_study.trials_of("genome")[0].failure
    page = page_of(new_study)
    assert "non-finite logits" in words_of(page)
    assert len(figures_of(page)) == 1


def test_text_of_others_stays_text(new_study: Study) -> None:
    evil = "</script><script>alert(1)</script><b onclick=x>"
    search = MadeUpSearch(new_study, generations=2, population=4, failure=evil)
    run_through(search.baselines())
    run_through(search.generation(1))
    run_through(search.generation(2))
    page = page_of(new_study, make_selection(after=2, winner=f"w{evil}"))
    assert "<script>alert" not in page
    assert "<b onclick" not in page
    assert page.count("</script>") == 2  # the figures and the page's own
    texts = json.dumps([figure["data"] for figure in figures_of(page)])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in texts
    assert "<script" not in texts


def test_the_file_is_written_whole_in_a_new_folder(searched: Study, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"
    assert write_report(searched, structure=None, out=out) == out
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    assert out.read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_a_file_that_cannot_be_written_is_said_in_one_line(searched: Study, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match=r"taken/report\.html: the report cannot be written"):
        write_report(searched, structure=None, out=tmp_path / "taken" / "report.html")

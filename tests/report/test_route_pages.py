from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.recipe import Recipe, read_recipe
from evomerge.report.html import write_report
from evomerge.route import hops_of
from evomerge.search.results.selection import Selection
from evomerge.study import Study, create_study
from evomerge.study.notes import SELECTION
from tests.report.route_studies import (
    LEFT,
    MERGE,
    MadeUpHybrid,
    MadeUpRouteSearch,
    hybrid_job,
    make_space,
    route_job,
    select_route,
)
from tests.report.studies import (
    SOURCES,
    layered,
    make_selection,
    make_structure,
    merge_of,
    run_through,
)
from tests.report.test_html import figures_of, words_of


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Study, MadeUpRouteSearch]]:
    with create_study(tmp_path_factory.mktemp("flow") / "run", route_job()) as study:
        search = MadeUpRouteSearch(study, space=make_space(), generations=6, population=6)
        run_through(search.steps())
        yield study, search


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Study, MadeUpRouteSearch]]:
    with create_study(tmp_path_factory.mktemp("hybrid") / "run", hybrid_job()) as study:
        search = MadeUpHybrid(study)
        run_through(search.steps())
        yield study, search.routes


def page_of(study: Study, selection: Selection | None, **options: Any) -> str:
    """The page as it is written; it can be looked at beside the study."""
    study.note(SELECTION, selection.to_json() if selection else None)
    options.setdefault("structure", make_structure())
    name = "report.html" if selection else "unfinished.html"
    return write_report(study, out=study.run_dir / name, **options).read_text(encoding="utf-8")


def sections_of(page: str) -> list[str]:
    return [html.unescape(title) for title in re.findall(r"<h2>(.*?)</h2>", page)]


def layers_drawn(figure: dict[str, Any]) -> list[int]:
    """Layers of the dots of a route's picture, in order."""
    return [round(y) for y in figure["data"][-1]["y"]]


def recipe_shown(page: str) -> Recipe:
    found = re.search(r"<summary>recipe.yaml</summary>.*?<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    assert found
    return read_recipe(html.unescape(found[1]), where="the page")


def test_a_search_of_routes_shows_them_and_no_coefficients(
    flow: tuple[Study, MadeUpRouteSearch],
) -> None:
    study, search = flow
    page = page_of(study, select_route(search))
    titles = sections_of(page)
    assert titles[3:5] == ["The winner’s route", "Routes over the generations"]
    assert not any("oefficients" in title for title in titles)
    recipe = search.decode(search.genome(0))
    *_, route, slots, depths = figures_of(page)
    assert layers_drawn(route) == [hop.layer for hop in hops_of(recipe)]
    assert len(slots["data"][0]["z"]) == 2 * 24 - 2
    assert list(depths["data"][-1]["x"]) == [1, 2, 3, 4, 5, 6]
    words = words_of(page)
    assert "18 layers, where arithmetic alone has 12." in words
    assert f"{12 - len(LEFT)} of 12 layers" in route["layout"]["xaxis"]["ticktext"][0]


def test_an_unfinished_search_shows_its_best_candidates_route(
    flow: tuple[Study, MadeUpRouteSearch],
) -> None:
    study, _ = flow
    page = page_of(study, None)
    best = max(study.trials_of("genome"), key=lambda trial: trial.score or 0.0)
    assert "The best candidate’s route" in sections_of(page)
    assert f"The best candidate’s route {best.key}: " in words_of(page)
    assert layers_drawn(figures_of(page)[1]) == [hop.layer for hop in hops_of(best.recipe)]


def test_a_winner_that_is_no_route_has_coefficients_beside_the_best_route(
    flow: tuple[Study, MadeUpRouteSearch],
) -> None:
    study, search = flow
    soup = merge_of(dict.fromkeys(SOURCES, 0.5))
    selection = replace(select_route(search), recipe=soup, winner="uniform soup")
    page = page_of(study, selection)
    assert {"The winner’s coefficients", "The best candidate’s route"} <= set(sections_of(page))
    assert "because the winner is not a route" in words_of(page)


def test_a_hybrid_shows_the_merge_it_is_made_of_and_the_route(
    hybrid: tuple[Study, MadeUpRouteSearch],
) -> None:
    study, search = hybrid
    page = page_of(study, select_route(search))
    assert sections_of(page)[3:6] == [
        "Coefficients of stage 1’s winner",
        "The winner’s route",
        "Routes over the generations",
    ]
    captions = figures_of(page)[-3]["layout"]["xaxis"]["ticktext"]
    assert captions[0].startswith(f"<b>{MERGE}</b><br>winner of stage 1<br>")


def test_a_hybrid_between_its_stages_shows_what_there_is(
    tmp_path: Path,
) -> None:
    with create_study(tmp_path / "run", hybrid_job()) as study:
        search = MadeUpHybrid(study)
        run_through(search.first_stage())
        titles = sections_of(page_of(study, None))
        assert "Coefficients of stage 1’s winner" in titles
        assert not any("oute" in title for title in titles)
        run_through(search.routes.generation(4))
        assert "The best candidate’s route" in sections_of(page_of(study, None))


def test_the_search_curve_is_broken_and_marked_where_a_stage_begins(
    hybrid: tuple[Study, MadeUpRouteSearch],
) -> None:
    study, search = hybrid
    curve = figures_of(page_of(study, select_route(search)))[0]
    (mark,) = curve["layout"]["shapes"]
    assert (mark["x0"], mark["x1"]) == (18.5, 18.5)  # three generations of six before it
    names = [note["text"] for note in curve["layout"]["annotations"] if note.get("y") == 1]
    assert names == [MERGE, "data_flow"]
    *_, best, mean = curve["data"]
    assert [place for place, y in enumerate(mean["y"]) if y is None] == [3]
    assert [place for place, y in enumerate(best["y"]) if y is None] == [3]
    assert "the beginning of a stage" in words_of(page_of(study, None))


def test_a_search_of_one_stage_has_no_marks(searched: Study, flow: tuple[Study, object]) -> None:
    for study in (searched, flow[0]):
        page = page_of(study, None)
        assert not figures_of(page)[0]["layout"].get("shapes")
        assert "next stage" not in words_of(page)


def test_a_search_of_merges_shows_no_routes(searched: Study) -> None:
    page = page_of(searched, make_selection(after=3))
    assert not any("oute" in title for title in sections_of(page))
    assert "The winner’s coefficients" in sections_of(page)
    assert "passes through a layer" not in words_of(page)


def test_what_shared_prefixes_saved_is_said(flow: tuple[Study, MadeUpRouteSearch]) -> None:
    words = words_of(page_of(flow[0], None))
    scored = sum(trial.failure is None for trial in flow[0].trials_of("genome"))
    assert f"that saved 38% of the candidates’ {480 * scored:,} passes through a layer" in words


def test_the_recipe_is_in_the_form_that_mergekit_executes(
    flow: tuple[Study, MadeUpRouteSearch], hybrid: tuple[Study, MadeUpRouteSearch]
) -> None:
    page = page_of(flow[0], select_route(flow[1]))
    assert recipe_shown(page).route is None
    assert recipe_shown(page).slices is not None
    assert "mergekit-yaml recipe.yaml merged" in words_of(page)
    page = page_of(hybrid[0], select_route(hybrid[1]))
    assert list(recipe_shown(page).stages) == [MERGE]
    assert "mergekit-multi recipe.yaml -I stages --out-path merged" in words_of(page)


def test_a_recipe_that_stays_a_route_is_not_sent_to_mergekit(
    flow: tuple[Study, MadeUpRouteSearch],
) -> None:
    selection = select_route(flow[1])
    page = page_of(flow[0], selection, structure=None)
    assert recipe_shown(page) == selection.recipe
    assert "mergekit-" not in words_of(page)
    assert "The winner’s route" in sections_of(page)  # its picture needs no checkpoint


def test_a_stage_without_checkpoints_says_so_once(
    hybrid: tuple[Study, MadeUpRouteSearch],
) -> None:
    page = page_of(hybrid[0], select_route(hybrid[1]), structure=None)
    assert words_of(page).count("The checkpoints could not be read") == 1


def test_baselines_have_the_keys_that_an_export_takes(searched: Study) -> None:
    page = page_of(searched, None)
    rows = re.findall(r'<td class="key">(g0000-i\d{3})</td><td class="name">([^<]+)', page)
    keys = {trial.label: str(trial.key) for trial in searched.trials_of("baseline")}
    assert {label.strip(): key for key, label in rows} == keys
    assert re.search(r"evomerge export \S+ --trial g0000-i\d{3} --out DIR", words_of(page))


def test_names_of_stages_are_no_markup(tmp_path: Path) -> None:
    """The picture's names are the record's, which others may have written."""
    with create_study(tmp_path / "run", route_job()) as study:
        search = MadeUpRouteSearch(
            study, space=make_space({"<i>m": layered(0)}), generations=1, population=4
        )
        run_through(search.generation(1))
        page = page_of(study, None)
        assert "<i>m" not in page.partition("<script>/**")[0]
        drawn = json.dumps(figures_of(page)[-3:])
        assert "<i>m" not in drawn
        assert drawn.count("&lt;i&gt;m") > 3

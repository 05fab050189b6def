"""What the page shows of jobs that have ended, of the queue, and to admins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.search.answered import WINNER
from tests.service.page.browser import Seat, seat
from tests.service.page.conftest import REASON, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def text_of(page: Page) -> str:
    return page.locator("main").inner_text()


def test_a_wrong_token_is_refused_with_a_reason(chromium: Browser, site: Site) -> None:
    page = chromium.new_page()
    page.goto(site.url)
    page.get_by_label("Token").fill("nonsense")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    assert "token" in page.get_by_role("alert").inner_text()
    page.close()


def test_a_session_outlives_a_reload_and_ends_when_the_person_leaves(own_desk: Seat) -> None:
    own_desk.page.reload()
    own_desk.page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    cookies = own_desk.page.context.cookies()
    assert [(each["httpOnly"], each["sameSite"]) for each in cookies] == [(True, "Strict")]
    assert own_desk.page.evaluate("document.cookie") == ""
    own_desk.page.get_by_role("button", name="Sign out").click()
    own_desk.page.get_by_label("Token").wait_for()
    assert own_desk.page.context.cookies() == []


def test_jobs_are_listed_and_filtered(desk: Seat, site: Site) -> None:
    rows = desk.page.locator("tbody tr")
    rows.first.wait_for()
    total = desk.fetch("jobs?limit=1")["total"]
    assert total >= len(site.jobs)
    assert rows.count() == min(total, 25)
    assert f"{total} jobs" in text_of(desk.page)
    desk.page.get_by_label("State").select_option("failed")
    desk.wait_count(rows, desk.fetch("jobs?state=failed&limit=1")["total"])
    assert all("failed" in row for row in rows.locator(".state").all_inner_texts())
    desk.page.get_by_label("State").select_option("")
    desk.page.get_by_label("Name or id").fill("waiting")
    desk.wait_count(rows, 1)
    assert "q=waiting" in desk.page.url
    desk.page.get_by_label("Name or id").fill("no such job")
    desk.page.get_by_text("No job matches these filters").wait_for()


def test_a_viewer_can_start_nothing(chromium: Browser, site: Site) -> None:
    with seat(chromium, site.url, site.tokens["viewer"]) as watcher:
        assert watcher.page.get_by_role("button", name="New search").count() == 0
        assert watcher.page.get_by_role("link", name="Admin").count() == 0
        watcher.go(f"job/{site.jobs['weights']}")
        watcher.page.get_by_role("heading", name="Scores of the candidates").wait_for()
        for name in ("Go on …", "Delete …", "Clone with changes"):
            assert watcher.page.get_by_text(name, exact=True).count() == 0


def test_a_search_is_drawn_with_its_baselines_and_their_intervals(desk: Seat, site: Site) -> None:
    job = site.jobs["weights"]
    desk.go(f"job/{job}")
    desk.page.locator(".chart").wait_for()
    desk.drawn()
    series = desk.fetch(f"jobs/{job}/series")["search"]
    label = desk.page.locator(".chart").get_attribute("aria-label") or ""
    assert f"Scores of {len(series['dots'])} candidates" in label
    desk.page.get_by_text("Baselines in numbers").click()
    table = desk.page.get_by_role("region", name="Baselines in numbers").inner_text()
    for line in series["lines"]:
        assert line["label"] in table and line["label"] in label
        assert f"{line['interval']['low']:.3f} to {line['interval']['high']:.3f}" in table
    headline = desk.fetch(f"jobs/{job}/winner")["headline"]
    assert headline in text_of(desk.page)


def test_charts_are_drawn_once_there_is_a_server_again(desk: Seat, site: Site) -> None:
    desk.page.route("**/vendor/echarts.js*", lambda route: route.abort(), times=2)
    desk.go(f"job/{site.jobs['weights']}")
    desk.page.locator(".chart").wait_for()
    desk.drawn()


def test_the_population_moves_over_the_generations(desk: Seat, site: Site) -> None:
    desk.go(f"job/{site.jobs['weights']}/population")
    desk.page.get_by_role("heading", name="Genes over the generations").wait_for()
    desk.drawn()
    labels = [chart.get_attribute("aria-label") for chart in desk.page.locator(".chart").all()]
    population = desk.fetch(f"jobs/{site.jobs['weights']}/series")["population"]
    count, genes = len(population["candidates"]), len(population["genes"])
    generations = len(population["generations"])
    assert labels == [
        f"Map of {count} candidates in {generations} generations",
        f"Mean of {genes} genes over {generations} generations",
    ]


def test_coefficients_and_scores_are_those_of_the_report(desk: Seat, site: Site) -> None:
    job = site.jobs["weights"]
    desk.go(f"job/{job}/coefficients")
    desk.page.get_by_role("heading", name="The winner’s coefficients").wait_for()
    desk.drawn()
    merge = desk.fetch(f"jobs/{job}/coefficients")["merges"][0]
    label = desk.page.locator(".chart").first.get_attribute("aria-label") or ""
    assert label.startswith(f"weight over {merge['depth']} layers")
    desk.go(f"job/{job}/scores")
    desk.page.locator(".figure").first.wait_for()
    desk.drawn()
    figures = desk.fetch(f"jobs/{job}/figures")["figures"]
    shown = [chart.get_attribute("aria-label") for chart in desk.page.locator(".chart").all()]
    wanted = [figure["description"] for place, figure in figures.items() if "test." in place]
    assert shown == wanted
    for model in desk.fetch(f"jobs/{job}/scores")["models"]:
        assert f"{model['score']['value']:.3f}" in text_of(desk.page)


def test_answers_are_shown_beside_the_parents_lost_ones_first(desk: Seat, site: Site) -> None:
    desk.go(f"job/{site.jobs['answered']}/answers")
    items = desk.page.locator("article")
    desk.wait_count(items, 10)
    caption = desk.page.locator("main p.caption[role=status]")
    facts = f"30 items of the test split; against japanese, {WINNER} lost 4 and gained 8."
    desk.wait_text(caption, facts)
    heads = items.locator("h3").all_inner_texts()
    assert heads == [
        *(f"kana_said {item} · lost" for item in range(12, 16)),
        *(f"kana_said {item} · gained" for item in range(6)),
    ]
    first = items.first
    assert first.get_by_role("region").first.inner_text() == "What is\n12 and one?"
    rows = [row.split("\t") for row in first.get_by_role("row").all_inner_texts()]
    assert rows[:3] == [
        ["wanted", "13", "exact_match"],
        [f"{WINNER} winner", "answer 0", "0"],
        ["japanese parent", "answer 13", "1"],
    ]
    desk.page.get_by_role("button", name="After").click()
    desk.page.get_by_text("11 to 20 of 30").wait_for()
    assert items.first.locator("h3").inner_text() == "kana_said 6 · gained"
    desk.page.get_by_label("Show").select_option("lost")  # begins at the first page again
    desk.page.get_by_text("1 to 4 of 4").wait_for()
    desk.page.get_by_label("Task").select_option("kana_chosen")
    desk.page.get_by_text("No item is like that").wait_for()
    desk.page.get_by_label("Show").select_option("")
    desk.wait_count(items, 10)
    desk.page.get_by_label("Items").select_option("validation")
    desk.page.get_by_text("no answers to validation items can be shown").wait_for()
    assert items.count() == 0  # not those of the choice before


def test_a_record_without_answers_says_so(desk: Seat, site: Site) -> None:
    job = site.jobs["weights"]
    desk.go(f"job/{job}/answers")
    desk.page.get_by_text(desk.fetch(f"jobs/{job}/answers?limit=10")["detail"]).wait_for()


def test_a_failed_job_says_why_and_can_be_tried_again(desk: Seat, site: Site) -> None:
    desk.go(f"job/{site.jobs['failed']}")
    desk.page.get_by_role("button", name="Retry").wait_for()
    desk.page.get_by_text(REASON).wait_for()
    desk.page.get_by_text("The search has not scored anything yet").wait_for()


def test_a_job_is_paused_resumed_cancelled_and_cloned_by_buttons(desk: Seat, site: Site) -> None:
    page = desk.page
    desk.go(f"job/{site.jobs['moved']}")
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("It is paused; its record is kept").wait_for()
    page.get_by_role("button", name="Resume …").click()
    page.get_by_label("Budget, candidates").fill("90")
    with page.expect_request("**/resume") as resumed:
        page.get_by_role("button", name="Resume", exact=True).click()
    assert resumed.value.post_data_json == {"set": {"budget.candidates": 90}}
    page.locator(".state.queued").wait_for()
    page.get_by_role("button", name="Cancel …").click()
    page.get_by_role("button", name="Cancel the job").click()
    page.locator(".state.cancelled").wait_for()
    page.get_by_role("link", name="Clone with changes").click()
    page.get_by_label("Name").fill("moved-2")
    page.get_by_label("Candidates at most").fill("12")
    page.get_by_text("When and where it runs").click()
    page.get_by_label("Priority").fill("5")
    page.get_by_text("The server would accept this job.").wait_for()
    page.get_by_role("button", name="Launch").click()
    page.get_by_role("heading", name="moved-2").wait_for()
    clone = desk.fetch(f"jobs/{page.url.rpartition('/')[2]}")
    assert (clone["parent"], clone["request"]["budget"]["candidates"]) == (site.jobs["moved"], 12)
    assert clone["priority"] == 5
    page.get_by_role("button", name="Cancel …").click()
    page.get_by_role("button", name="Cancel the job").click()
    page.locator(".state.cancelled").wait_for()
    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Delete the job").click()
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()


def test_the_queue_is_reordered_by_the_keyboard(desk: Seat, site: Site) -> None:
    desk.go("queue")
    names = desk.page.get_by_role("region", name="Waiting jobs").locator("td.name a")
    names.first.wait_for()
    before = names.all_inner_texts()
    desk.page.get_by_role("button", name=f"Move {before[1]} up").focus()
    desk.page.keyboard.press("Enter")
    desk.page.get_by_text(f"{before[1]} is number 1 of the queue now").wait_for()
    desk.wait_text(names.first, before[1])
    desk.page.get_by_label(f"Priority of {before[0]}").fill("7")
    desk.page.keyboard.press("Enter")
    desk.wait_text(names.first, before[0])


def test_files_are_downloaded_with_their_checksum(desk: Seat, site: Site) -> None:
    desk.go(f"job/{site.jobs['export']}")
    desk.page.get_by_role("button", name="Download model.safetensors").wait_for()
    with desk.page.expect_download() as download:
        desk.page.get_by_role("button", name="Download model.safetensors").click()
    assert download.value.path().read_bytes() == bytes(5000)
    desk.page.get_by_text("Checksum right").wait_for()
    with desk.page.expect_download() as archive:
        desk.page.get_by_role("link", name=re.compile("Download all")).click()
    assert archive.value.suggested_filename.endswith(".tar")
    for tool in ("transformers", "vLLM", "llama.cpp"):
        assert desk.page.get_by_role("region", name=f"Use with {tool}").count() == 1


def test_an_admin_makes_and_revokes_a_token_and_reads_the_audit_log(office: Seat) -> None:
    office.go("admin/tokens")
    office.page.get_by_label("Person", exact=True).fill("bea")
    office.page.get_by_label("What it is for").fill("notebook")
    office.page.get_by_label("Role").select_option("runner")
    office.page.get_by_role("button", name="Make").click()
    shown = office.page.get_by_role("region", name="New token")
    shown.wait_for()
    assert shown.inner_text().startswith("evm_")
    office.page.get_by_role("button", name="Revoke notebook of bea").click()
    office.page.get_by_role("button", name="Revoke the token").click()
    office.page.get_by_text("notebook is revoked").wait_for()
    office.go("admin/audit")
    office.page.get_by_text("token.revoke").first.wait_for()
    office.go("admin/health")
    office.page.get_by_role("heading", name=re.compile("The server is")).wait_for()


def test_a_webhook_is_made_tested_disabled_and_deleted(desk: Seat) -> None:
    page = desk.page
    desk.go("webhooks")
    page.get_by_label("Address").fill("https://127.0.0.1/x")
    page.get_by_role("button", name="Make").click()
    page.get_by_text("its host is not a public one").wait_for()
    page.get_by_label("Address").fill("https://hooks.invalid/secret-path")
    page.get_by_label("Name").fill("chat")
    page.get_by_text("Events: everything").click()
    page.get_by_label("job.failed").check()
    page.get_by_role("button", name="Make").click()
    shown = page.get_by_role("region", name="New secret")
    shown.wait_for()
    assert shown.inner_text().startswith("whsec_")
    page.get_by_role("button", name="Test: chat").click()
    deliveries = page.get_by_role("region", name="Deliveries")
    deliveries.get_by_text("webhook.test").wait_for()
    deliveries.get_by_text("its name has no address").wait_for()
    page.get_by_role("button", name="Disable: chat").click()
    page.get_by_text("by runner").wait_for()
    page.get_by_role("button", name="Enable: chat").wait_for()
    page.get_by_role("button", name="Delete: chat").click()
    page.get_by_role("button", name="Delete the webhook").click()
    page.get_by_text("chat is deleted.").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wrong_with_contrast_names_and_landmarks(
    chromium: Browser, site: Site, scheme: str
) -> None:
    search, front = site.jobs["weights"], site.jobs["front"]
    views = ["jobs", "queue", f"job/{search}", f"job/{front}/scores", f"job/{search}/population"]
    views += [f"job/{search}/candidates", f"job/{search}/exports", f"job/{search}/family"]
    views += [f"job/{site.jobs['export']}", "new", "compare", "webhooks", "admin/tokens"]
    views += ["admin/audit"]
    with seat(chromium, site.url, site.tokens["admin"], color_scheme=scheme) as taken:
        faults = []
        for view in views:
            taken.go(view)
            taken.page.get_by_role("heading", level=1).wait_for()
            taken.page.wait_for_load_state("networkidle")
            # Nothing but colours depends on the scheme.
            rules = ("color-contrast",) if scheme == "dark" else ()
            faults += [f"{view}: {fault}" for fault in taken.faults(*rules)]
    assert faults == []


def test_the_scheme_is_switched_and_kept(own_desk: Seat) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = own_desk.page.evaluate(ground)
    button = own_desk.page.get_by_role("button", name=re.compile("Colours"))
    button.click()
    button.click()
    dark = own_desk.page.evaluate(ground)
    assert dark != light
    own_desk.page.reload()
    own_desk.page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    assert own_desk.page.evaluate(ground) == dark


_CUT_TABLES = """[...document.querySelectorAll(".scroll")]
  .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.ariaLabel)"""


def test_nothing_is_wider_than_a_phone(chromium: Browser, site: Site) -> None:
    search = site.jobs["weights"]
    views = [
        "jobs",
        "queue",
        "new",
        "compare",
        "webhooks",
        "admin/tokens",
        f"job/{site.jobs['export']}",
    ]
    views += [f"job/{search}/{tab}" for tab in ("search", "scores", "answers", "candidates")]
    whole = ("jobs", "queue", "admin/tokens", f"job/{site.jobs['export']}")  # with what is moved by
    with seat(
        chromium, site.url, site.tokens["admin"], viewport={"width": 390, "height": 800}
    ) as phone:
        for view in views:
            phone.go(view)
            phone.page.get_by_role("heading", level=1).wait_for()
            phone.page.wait_for_load_state("networkidle")
            width = phone.page.evaluate("document.documentElement.scrollWidth")
            assert width <= 390, view
            if view in whole:
                phone.page.locator("table.stack tbody tr").first.wait_for()
                assert phone.page.evaluate(_CUT_TABLES) == [], view
        # The numbers in the chart have their names beneath it.
        phone.go(f"job/{search}/search")
        names = phone.page.get_by_role("list", name="Baselines in the chart")
        names.wait_for()
        lines = phone.fetch(f"jobs/{search}/series")["search"]["lines"]
        best_first = [line["label"] for line in sorted(lines, key=lambda line: -line["score"])]
        shown = names.get_by_role("listitem").all_inner_texts()
        assert [text.rsplit(" ", 1)[0] for text in shown] == best_first

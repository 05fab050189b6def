"""On the page: trackers of a new search, where an export is pushed, and what came of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.service.page.browser import Seat
from tests.service.page.conftest import PUSHED, Site

if TYPE_CHECKING:
    from playwright.sync_api import Route


class Kept:
    """Keeps what is sent to a route, and refuses it."""

    def __init__(self) -> None:
        self.documents: list[Any] = []

    def __call__(self, route: Route) -> None:
        if route.request.method != "POST":
            route.fallback()
            return
        self.documents.append(route.request.post_data_json)
        problem = {"title": "Bad input", "detail": "it is only a test", "status": 422}
        route.fulfill(status=422, content_type="application/problem+json", body=json.dumps(problem))


def test_a_search_is_shown_in_the_trackers_that_are_chosen_by_keyboard(
    own_desk: Seat, site: Site
) -> None:
    page, kept = own_desk.page, Kept()
    page.route("**/api/v1/jobs", kept)
    own_desk.go("new")
    page.get_by_label("Name").fill("kana")
    page.get_by_label("Base model").fill("base")
    page.get_by_label("arithmetic").and_(page.get_by_role("checkbox")).check()
    page.get_by_label("counting").and_(page.get_by_role("checkbox")).check()
    page.get_by_label("Task", exact=True).fill("kana_arithmetic_en")
    page.get_by_text("More settings").focus()
    page.keyboard.press("Enter")
    box = page.get_by_role("group", name="Shown in").get_by_label("tensorboard")
    box.focus()
    page.keyboard.press("Space")
    assert box.is_checked()
    page.get_by_text("The server would accept this job.").wait_for()
    assert own_desk.faults() == []
    page.get_by_role("button", name="Launch").click()
    page.get_by_text("it is only a test").wait_for()
    assert [each["track"] for each in kept.documents] == [{"tensorboard": {}}]
    page.get_by_role("button", name="Plan first").click()
    page.get_by_role("button", name="Make the plan").click()
    page.get_by_role("dialog").get_by_text("it is only a test").wait_for()
    assert "track" not in kept.documents[-1]  # a plan is shown nowhere


def test_names_in_a_tracker_are_given_where_it_has_some(own_desk: Seat) -> None:
    page = own_desk.page
    listed = [{"name": "wandb", "options": ["project"]}]
    page.route("**/api/v1/trackers", lambda route: route.fulfill(json=listed))
    own_desk.go("new")
    page.get_by_text("More settings").click()
    page.get_by_role("group", name="Shown in").get_by_label("wandb").check()
    with page.expect_request(
        lambda request: '"project":"merges"' in (request.post_data or "")
    ) as sent:
        page.get_by_label("wandb: project").fill("merges")
    document: Any = sent.value.post_data_json
    assert document["track"] == {"wandb": {"project": "merges"}}


def test_a_copy_keeps_its_trackers_and_one_that_is_gone_is_taken_away(
    own_desk: Seat, site: Site
) -> None:
    page, kept = own_desk.page, Kept()
    page.route("**/clone", kept)
    own_desk.go(f"job/{site.jobs['waiting']}/request")
    page.get_by_text("tensorboard, gone").wait_for()
    page.get_by_role("link", name="Clone with changes").click()
    page.get_by_text("gone: not a tracker of this service").first.wait_for()
    page.get_by_text("More settings").click()
    page.get_by_label("gone (not allowed any more)").uncheck()
    page.get_by_text("The server would accept this job.").wait_for()
    page.get_by_role("button", name="Launch").click()
    page.get_by_text("it is only a test").wait_for()
    assert [each["track"] for each in kept.documents] == [{"tensorboard": {}}]


def test_an_export_is_pushed_to_an_organisation_that_is_allowed(own_desk: Seat, site: Site) -> None:
    page, kept = own_desk.page, Kept()
    own_desk.go(f"job/{site.jobs['weights']}/exports")
    choice = page.get_by_label("Push to the Hugging Face hub")
    choice.wait_for()
    choice.select_option("acme")
    name = page.get_by_label("Repository")
    name.fill("a/b")
    page.get_by_role("button", name="Export", exact=True).click()
    page.get_by_text("not a name on the hub").wait_for()
    assert name.get_attribute("aria-invalid") == "true"
    page.route("**/exports", kept)
    name.fill("kana")
    page.get_by_label("let everyone read it").check()
    assert own_desk.faults() == []
    page.get_by_role("button", name="Export", exact=True).click()
    page.get_by_text("it is only a test").wait_for()
    [sent] = kept.documents
    assert (sent["push"], sent["public"]) == ("acme/kana", True)


def test_the_link_of_what_was_pushed_is_shown(desk: Seat, site: Site) -> None:
    desk.go(f"job/{site.jobs['export']}")
    link = desk.page.get_by_role("link", name=PUSHED)
    link.wait_for()
    assert link.get_attribute("href") == PUSHED

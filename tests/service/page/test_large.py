"""A real record of 10,000 candidates: the page draws what is seen, and stays quick to use."""

from __future__ import annotations

import pytest

from tests.service.page.browser import Seat
from tests.service.page.conftest import Site
from tests.study.many import REASON, write_many

COUNT = 10_000
_SCORES = """box => [...box.querySelectorAll("tr[aria-rowindex]")]
  .map((row) => [row.getAttribute("aria-rowindex"), row.cells[3].innerText])"""
BASELINES = 9


@pytest.fixture(scope="module")
def large(site: Site) -> str:
    job = site.house.job(name="large")
    write_many(site.house.settings.run_dir(job.id), COUNT)
    site.house.set_state(job.id, "paused")
    site.jobs["large"] = job.id
    return job.id


def test_ten_thousand_candidates_are_drawn_and_scrolled(desk: Seat, large: str) -> None:
    page = desk.page
    desk.go(f"job/{large}")
    scored = COUNT - len(range(50, COUNT, 97))
    page.get_by_text(f"{scored:,} candidates scored").wait_for()
    desk.drawn()
    drawn = {each["name"]: each["data"] for each in desk.series(page.locator(".chart"))}
    assert len(drawn["candidates"]) == scored
    assert len(drawn["failed"]) == COUNT - scored
    assert page.get_by_role("row", name=REASON).inner_text().split("\t")[-1] == str(COUNT - scored)

    with page.expect_response(f"**/{large}/candidates*offset=5000*"):
        desk.go(f"job/{large}/candidates")  # asks for them in parts
    total = f"{COUNT + BASELINES:,}"
    page.get_by_text(f"{total} of {total}").wait_for()
    box = page.get_by_role("region", name="Candidates")
    body = box.locator("tbody tr")
    assert body.count() < 100
    box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    page.get_by_role("cell", name="g0200-i049").first.wait_for()
    assert body.count() < 100

    rows = desk.fetch(f"jobs/{large}/candidates")["items"]
    known = sorted(row["score"] for row in rows if row["score"] is not None)
    for sign, order in (("↓", known[::-1]), ("↑", known)):  # the best, then the worst
        page.get_by_role("columnheader", name="score", exact=False).get_by_role("button").click()
        box.evaluate("box => { box.scrollTop = 0; }")
        page.get_by_role("button", name=f"score {sign}").wait_for()
        shown = dict(box.evaluate(_SCORES))
        top = [shown[str(place)] for place in range(2, 22)]
        assert top == [f"{score:.3f}" for score in order[:20]]
    page.get_by_label("Find").fill("g0123-i007")
    page.get_by_text(f"1 of {total}").wait_for()
    assert box.get_by_text("g0123-i007").count() == 2

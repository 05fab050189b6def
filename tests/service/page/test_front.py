"""A point of a front is picked by a click or by keyboard, and exported."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.service.page.browser import Seat
from tests.service.page.conftest import Site


def test_a_point_is_picked_by_a_click(desk: Seat, site: Site) -> None:
    labels = begin(desk, site)
    page, chart = desk.page, desk.page.locator(".chart").first
    [series] = desk.series(chart)
    points = [datum for datum in series["data"] if datum["name"] in labels]
    assert [point["name"] for point in points] == labels
    others = [each["place"] for each in series["data"]]
    alone = [
        point
        for point in points[1:]  # the first is chosen from the beginning
        if sorted(math.dist(point["place"], place) for place in others)[1] > 12
    ]
    assert alone
    for point in alone:
        x, y = point["place"]
        chart.click(position={"x": x, "y": y})
        desk.wait_count(page.get_by_role("radio", name=point["name"], exact=True, checked=True), 1)
    page.get_by_role("link", name="Export this point").click()
    check_export(desk, site, alone[-1]["name"], page.get_by_role("button", name="Export").click)


def test_a_point_is_picked_by_keyboard(desk: Seat, site: Site) -> None:
    labels = begin(desk, site)
    page = desk.page
    page.get_by_role("radio", checked=True).focus()
    for label in labels[1:]:
        page.keyboard.press("ArrowDown")
        desk.wait_count(page.get_by_role("radio", name=label, exact=True, checked=True), 1)
    page.keyboard.press("Tab")
    assert page.locator("a:focus").inner_text() == "Export this point"
    page.keyboard.press("Enter")
    field = page.get_by_label("Point of the front")
    field.focus()
    check_export(desk, site, labels[-1], lambda: page.keyboard.press("Enter"))


def begin(desk: Seat, site: Site) -> list[str]:
    """Show the front; the labels of its points."""
    job = site.jobs["front"]
    desk.go(f"job/{job}/scores")
    points = [point["label"] for point in desk.fetch(f"jobs/{job}/winner")["points"]]
    desk.wait_count(desk.page.get_by_role("radio"), len(points))
    desk.drawn()
    return points


def check_export(desk: Seat, site: Site, label: str, send: Callable[[], None]) -> None:
    """The point is in the form, its recipe is shown, and what is sent exports it and no other."""
    job = site.jobs["front"]
    field = desk.page.get_by_label("Point of the front")
    field.wait_for()
    assert field.input_value() == label
    points = {point["label"]: point for point in desk.fetch(f"jobs/{job}/winner")["points"]}
    shown = desk.page.get_by_role("region", name="Recipe")
    shown.wait_for()
    assert shown.inner_text().strip() == points[label]["recipe"].strip()
    with desk.page.expect_response("**/exports") as answered:
        send()
    made = answered.value.json()
    assert (made["parent"], made["state"]) == (job, "queued")
    assert desk.fetch(f"jobs/{made['id']}")["request"]["point"] == label
    desk.page.get_by_role("link", name="export", exact=True).first.wait_for()
    desk.send("POST", f"jobs/{made['id']}/cancel")  # nothing runs it here
    site.jobs[f"export of {label}"] = made["id"]

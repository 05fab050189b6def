"""Live events in a browser: one connection for all its tabs, given up while a tab is hidden."""

from __future__ import annotations

import re
from pathlib import Path

import evomerge
from tests.service.page.browser import Seat
from tests.service.page.conftest import Site

TABS = 7  # a browser has six connections to a server


def test_many_tabs_watch_a_job_over_one_connection(office: Seat, site: Site) -> None:
    job = site.jobs["paused"]
    tabs = [office.page.context.new_page() for _ in range(TABS)]
    for tab in tabs:
        tab.goto(f"{office.url}/#/job/{job}")
        tab.get_by_text("It waits for its turn").wait_for()
    for _ in range(600):  # the server may not have heard yet that a page of another test is gone
        numbers = office.page.evaluate("async () => (await fetch('/metrics')).text()")
        watchers = re.search(r"^evomerge\w*watchers\S* (\S+)$", numbers, re.MULTILINE)
        if watchers is not None and float(watchers[1]) == 1.0:
            break
        office.page.wait_for_timeout(50)
    assert watchers is not None and float(watchers[1]) == 1.0
    # What happens reaches every tab without a look at the server.
    office.send("POST", f"jobs/{job}/pause")
    for tab in tabs:
        tab.locator(".state.paused").wait_for()
    for tab in tabs:
        tab.close()


def test_every_stream_has_the_same_events() -> None:
    """A shared worker cannot import the list of the page in every browser."""
    app = Path(evomerge.__file__).parent / "service" / "page" / "static" / "app"
    lists = [
        re.search(r"NAMES = (\[.*?\]);", (app / name).read_text(encoding="utf-8"), re.DOTALL)
        for name in ("live.js", "stream_worker.js")
    ]
    first, second = (found and found[1] for found in lists)
    assert first and first == second

"""The whole way in a browser: a form, a real search watched live, its export, the download."""

from __future__ import annotations

import hashlib
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import evomerge
from tests.search.jobs import TASKS, write_models
from tests.service.client.test_real_server import served
from tests.service.page.browser import seat

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LONG_MS = 240_000


def test_a_search_is_built_launched_watched_exported_and_downloaded(
    chromium: Browser, tmp_path: Path
) -> None:
    write_models(tmp_path / "models")
    allowed = ("--allow-source", str(tmp_path / "models"), "--allow-task", str(TASKS))
    data = tmp_path / "data"
    with (
        ExitStack() as servers,
        served(data, "--port", "0", *allowed) as (first, lines),
        seat(chromium, url := lines[-1].removeprefix("listening on "), lines[1]) as taken,
    ):
        page = taken.page
        page.get_by_role("button", name="New search").click()
        page.get_by_label("Name").fill("two sums")
        page.get_by_text(re.compile("name: two sums: ")).first.wait_for()
        page.get_by_label("Name").fill("sums")
        page.get_by_label("Base model").fill("base")
        page.get_by_label("first", exact=False).and_(page.get_by_role("checkbox")).check()
        page.get_by_label("second", exact=False).and_(page.get_by_role("checkbox")).check()
        page.get_by_label("Task", exact=True).fill("sums_choice")
        page.get_by_label("Metric").fill("acc")
        page.get_by_label("Candidates at most").fill("0")
        page.get_by_text(re.compile("budget.candidates: 0")).first.wait_for()
        page.get_by_label("Candidates at most").fill("6")
        page.get_by_text("More settings").click()
        page.get_by_label("Items per generation").fill("8")
        page.get_by_label("Items for baselines").fill("8")
        page.get_by_text("The server would accept this job.").wait_for()
        written = page.get_by_role("region", name="Job file").inner_text()
        assert "task: sums_choice" in written and "candidates: 6" in written
        assert str(TASKS) in written  # a job names the folder of a task that is not evomerge's own

        page.get_by_role("button", name="Plan first …").click()
        page.get_by_role("button", name="Make the plan").click()
        page.get_by_text("Items, all together").wait_for(timeout=LONG_MS)
        assert "sums_choice" in page.get_by_role("region", name="Tasks of the plan").inner_text()
        page.get_by_role("button", name="Close").click()

        page.get_by_role("button", name="Launch").click()
        page.get_by_role("heading", name="sums").wait_for()
        job = re.search(r"#/job/(j[a-z2-7]{15})", page.url)
        assert job is not None
        page.get_by_text(re.compile(r"\d+ candidates? scored")).wait_for(timeout=LONG_MS)
        first.kill()  # the search goes on, and so does the page when there is a server again
        first.wait()
        going_on = served(data, "--port", url.rpartition(":")[2], *allowed)
        servers.enter_context(going_on)
        page.locator(".verdict").wait_for(timeout=LONG_MS)
        page.locator(".state.succeeded").wait_for(timeout=LONG_MS)
        assert evomerge.open_run(data / "runs" / job[1]).headline in page.inner_text("main")

        page.get_by_role("link", name="Export", exact=True).click()
        page.get_by_role("button", name="Export", exact=True).click()
        download = page.get_by_role("button", name="Download model.safetensors")
        download.wait_for(timeout=LONG_MS)
        with page.expect_download() as got:
            download.click()
        page.get_by_text("Checksum right").wait_for()
        [kept] = (data / "exports").glob("j*/model.safetensors")
        wanted = hashlib.sha256(kept.read_bytes()).hexdigest()
        assert hashlib.sha256(got.value.path().read_bytes()).hexdigest() == wanted

"""The whole way in a browser: a form, a real search watched live, its export, the download."""

from __future__ import annotations

import hashlib
import re
import tarfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import lm_eval
import numpy as np
import pytest
from lm_eval.tasks import TaskManager

import evomerge
from tests.search.jobs import TASKS, write_models
from tests.service.client.test_real_server import served
from tests.service.page.browser import seat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

LONG_MS = 240_000
CANDIDATES = 24
AWAY_S = (0, 5, 20)
"""How long there is no server after each kill of it."""


def test_a_search_is_built_launched_watched_exported_and_downloaded(
    chromium: Browser, tmp_path: Path
) -> None:
    write_models(tmp_path / "models")
    allowed = ("--allow-source", str(tmp_path / "models"), "--allow-task", str(TASKS))
    data = tmp_path / "data"
    with (
        ExitStack() as servers,
        served(data, "--port", "0", *allowed) as (server, lines),
        seat(chromium, url := lines[-1].removeprefix("listening on "), lines[1]) as taken,
    ):
        page = taken.page
        port = url.rpartition(":")[2]
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
        page.get_by_label("Candidates at most").fill(str(CANDIDATES))
        page.get_by_text("More settings").click()
        page.get_by_label("Items per generation").fill("8")
        page.get_by_label("Items for baselines").fill("8")
        page.get_by_text("The server would accept this job.").wait_for()
        written = page.get_by_role("region", name="Job file").inner_text()
        assert "task: sums_choice" in written and f"candidates: {CANDIDATES}" in written
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
        scored = page.get_by_text(re.compile(r"\d+ candidates? scored"))
        before = 0
        for (
            away_s
        ) in AWAY_S:  # the search goes on, and so does the page when there is a server again
            before = wait_for_more(scored, than=before)
            server.kill()
            server.wait()
            time.sleep(away_s)
            server, _ = servers.enter_context(served(data, "--port", port, *allowed))
        page.locator(".verdict").wait_for(timeout=LONG_MS)
        page.locator(".state.succeeded").wait_for(timeout=LONG_MS)
        found = evomerge.open_run(data / "runs" / job[1])
        assert found.headline in page.inner_text("main")
        assert f"{CANDIDATES} candidates scored" in page.inner_text("main")

        score = found.winner.scores.score
        taken.go(f"job/{job[1]}/scores")
        page.locator(".figure").first.wait_for()
        assert f"{score.value:.3f}" in page.inner_text("main")
        taken.go(f"job/{job[1]}")
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
        with page.expect_download() as archive:
            page.get_by_role("link", name=re.compile("Download all")).click()
        with tarfile.open(archive.value.path()) as packed:
            packed.extractall(tmp_path / "downloaded", filter="data")
    [model] = (tmp_path / "downloaded").iterdir()
    assert stock_score(model, found) == pytest.approx(score.value, abs=1e-12)


def wait_for_more(scored: Locator, *, than: int) -> int:
    """How many candidates the page says are scored, once they are more, or all."""
    until = time.monotonic() + LONG_MS / 1000
    while time.monotonic() < until:
        scored.wait_for(timeout=LONG_MS)
        count = int(scored.inner_text().split()[0])
        if count > than or count == CANDIDATES:
            return count
        time.sleep(0.1)
    raise AssertionError(scored.page.inner_text("main"))


def stock_score(model: Path, found: evomerge.SearchResult) -> float:
    """What stock lm-eval gives a model on the items that the winner was tested on."""
    rows = found.items_dataframe(found.winner.candidate)
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        tasks=["sums_choice"],
        samples={"sums_choice": rows["item"].tolist()},
        task_manager=TaskManager(include_defaults=False, include_path=str(TASKS)),
        bootstrap_iters=0,
        device="cpu",
    )
    assert results is not None
    return float(np.mean([row["acc"] for row in results["samples"]["sums_choice"]]))

"""The whole way in a browser: a form, a real search watched live, its export, the download."""

from __future__ import annotations

import hashlib
import re
import tarfile
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
import numpy as np
import pytest
import yaml
from lm_eval.tasks import TaskManager

import evomerge
from tests.search.jobs import TASKS, write_models
from tests.service.client.test_real_server import served
from tests.service.page.browser import Seat, seat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ROOT = Path(evomerge.__file__).parents[1]
KANA = ROOT / "examples" / "kana"
AWAY_S = (0, 5, 20)
"""How long there is no server after each kill of it."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A search that is built by the form.

    tasks: where stock lm-eval finds its tasks. own: whether that folder is not evomerge's.
    measured: task -> the metric that is scored. patience_ms: for the steps that work with models.
    """

    name: str
    models: Path
    tasks: Path
    own: bool
    measured: dict[str, str]
    candidates: int
    fill: Callable[[Page], None]
    patience_ms: float


def small(models: Path) -> Way:
    """A search that takes seconds."""
    write_models(models)
    return Way(
        name="sums",
        models=models,
        tasks=TASKS,
        own=True,
        measured={"sums_choice": "acc"},
        candidates=24,
        fill=fill_small,
        patience_ms=240_000,
    )


def fill_small(page: Page) -> None:
    """Every field is checked while it is typed."""
    page.get_by_label("Name").fill("two sums")
    page.get_by_text(re.compile("name: two sums: ")).first.wait_for()
    page.get_by_label("Name").fill("sums")
    page.get_by_label("Base model").fill("base")
    check_sources(page, ("first", "second"))
    fill_objectives(page, {"sums_choice": "acc"})
    page.get_by_label("Candidates at most").fill("0")
    page.get_by_text(re.compile("budget.candidates: 0")).first.wait_for()
    page.get_by_label("Candidates at most").fill("24")
    page.get_by_text("More settings").click()
    page.get_by_label("Items per generation").fill("8")
    page.get_by_label("Items for baselines").fill("8")
    page.get_by_text("The server would accept this job.").wait_for()
    written = page.get_by_role("region", name="Job file").inner_text()
    assert "task: sums_choice" in written and "candidates: 24" in written
    assert str(TASKS) in written  # a job names the folder of a task that is not evomerge's own


def demo() -> Way:
    """The search of scripts/demo."""
    job = yaml.safe_load((KANA / "job.yaml").read_text(encoding="utf-8"))
    return Way(
        name="kana",
        models=KANA / "models",
        tasks=ROOT / "evals",
        own=False,
        measured={each["task"]: each["metric"] for each in job["objectives"]},
        candidates=job["budget"]["candidates"],
        fill=lambda page: fill_demo(page, job),
        patience_ms=3_000_000,
    )


def fill_demo(page: Page, job: dict[str, Any]) -> None:
    """Write the job of scripts/demo by fields alone; what the page makes of it is that job."""
    page.get_by_label("Name").fill(job["name"])
    page.get_by_label("Base model").fill("base")
    check_sources(page, [Path(source).name for source in job["models"]["sources"]])
    fill_objectives(page, {each["task"]: each["metric"] for each in job["objectives"]})
    page.get_by_label("Objectives are combined by").select_option(job["aggregate"])
    page.get_by_label("Search space").select_option(job["search_space"])
    page.get_by_label("Candidates at most").fill(str(job["budget"]["candidates"]))
    page.get_by_text("More settings").click()
    evaluation, split = job["evaluation"], job["evaluation"]["split"]
    for label, value in (
        ("Items per generation", evaluation["items_per_generation"]),
        ("Items for baselines", evaluation["items_for_baselines"]),
        ("Seed", job["optimizer"]["seed"]),
        ("Share of items: search", split["search"]),
        ("validation", split["validation"]),
        ("test", split["test"]),
        ("Scored at the end only", ", ".join(job["report"])),
    ):
        page.get_by_label(label, exact=True).fill(str(value))
        page.keyboard.press("Tab")
    page.get_by_label("Numbers").select_option(job["compute"]["dtype"])
    shown = page.get_by_role("region", name="Job file").filter(has_text="dtype: float32")
    shown.filter(has_text=job["report"][-1]).wait_for()
    page.get_by_text("The server would accept this job.").wait_for()
    written = yaml.safe_load(shown.inner_text())
    models = written["models"]
    assert [models["base"], *models["sources"]] == [
        str(ROOT / each) for each in (job["models"]["base"], *job["models"]["sources"])
    ]
    wanted = evomerge.JobSpec.model_validate({**job, "models": models})
    assert evomerge.JobSpec.model_validate(written).model_dump() == wanted.model_dump()


def check_sources(page: Page, names: Collection[str]) -> None:
    for name in names:
        page.get_by_role("checkbox", name=re.compile(rf"^{name}\b")).check()


def fill_objectives(page: Page, measured: dict[str, str]) -> None:
    for place, (task, metric) in enumerate(measured.items()):
        if place:
            page.get_by_role("button", name="Add an objective").click()
        page.get_by_label("Task", exact=True).nth(place).fill(task)
        page.get_by_label("Metric").nth(place).fill(metric)


@pytest.mark.parametrize("kind", ["small", "demo"])
def test_a_search_is_built_launched_watched_exported_and_downloaded(
    chromium: Browser, tmp_path: Path, kind: str, faults: bool
) -> None:
    if kind == "demo" and not faults:
        pytest.skip("the search of scripts/demo takes minutes; --faults runs it")
    way = demo() if kind == "demo" else small(tmp_path / "models")
    allowed = ["--allow-source", str(way.models)]
    if way.own:
        allowed += ["--allow-task", str(way.tasks)]
    data = tmp_path / "data"
    with (
        ExitStack() as servers,
        served(data, "--port", "0", *allowed) as (server, lines),
        seat(chromium, url := lines[-1].removeprefix("listening on "), lines[1]) as taken,
    ):
        page = taken.page
        port = url.rpartition(":")[2]
        page.get_by_role("button", name="New search").click()
        way.fill(page)
        plan(page, way)
        page.get_by_role("button", name="Launch").click()
        page.get_by_role("heading", name=way.name).wait_for()
        job = re.search(r"#/job/(j[a-z2-7]{15})", page.url)
        assert job is not None
        scored = page.get_by_text(re.compile(r"[\d,]+ candidates? scored"))
        before = 0
        for away_s in AWAY_S:
            # The search goes on, and so does the page when there is a server again.
            before = wait_for_more(scored, way, than=before)
            server.kill()
            server.wait()
            time.sleep(away_s)
            server, _ = servers.enter_context(served(data, "--port", port, *allowed))
        page.locator(".verdict").wait_for(timeout=way.patience_ms)
        page.locator(".state.succeeded").wait_for(timeout=way.patience_ms)
        found = evomerge.open_run(data / "runs" / job[1])
        assert found.headline in page.inner_text("main")
        assert f"{way.candidates} candidates scored" in page.inner_text("main")
        check_scores(taken, job[1], found)
        model = download(taken, way, job[1], tmp_path)
    scores = found.winner.scores
    stock = stock_scores(model, found, way)
    assert stock == pytest.approx(
        {task: scores.tasks[task][metric].value for task, metric in way.measured.items()}, abs=1e-12
    )
    if len(stock) == 1:
        assert [*stock.values()] == pytest.approx([scores.score.value], abs=1e-12)


def plan(page: Page, way: Way) -> None:
    """See what the job takes, before it is launched."""
    page.get_by_role("button", name="Plan first …").click()
    page.get_by_role("button", name="Make the plan").click()
    page.get_by_text("Items, all together").wait_for(timeout=way.patience_ms)
    tasks = page.get_by_role("region", name="Tasks of the plan").inner_text()
    assert all(task in tasks for task in way.measured)
    page.get_by_role("button", name="Close").click()


def check_scores(taken: Seat, job: str, found: evomerge.SearchResult) -> None:
    """The page shows the winner's scores, of all tasks together and of each."""
    taken.go(f"job/{job}/scores")
    taken.page.locator(".figure").first.wait_for()
    shown = taken.page.locator("tr.won").inner_text()
    scores = found.winner.scores
    assert f"{scores.score.value:.3f}" in shown
    for metrics in scores.tasks.values():
        for it in metrics.values():
            assert f"{it.value:.3f}" in shown


def download(taken: Seat, way: Way, job: str, tmp_path: Path) -> Path:
    """Export the winner and download it, with its checksum and as one archive; its folder."""
    page = taken.page
    taken.go(f"job/{job}")
    page.get_by_role("link", name="Export", exact=True).click()
    page.get_by_role("button", name="Export", exact=True).click()
    button = page.get_by_role("button", name="Download model.safetensors")
    button.wait_for(timeout=way.patience_ms)
    with page.expect_download() as got:
        button.click()
    page.get_by_text("Checksum right").wait_for()
    [kept] = (tmp_path / "data" / "exports").glob("j*/model.safetensors")
    wanted = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert hashlib.sha256(got.value.path().read_bytes()).hexdigest() == wanted
    with page.expect_download() as archive:
        page.get_by_role("link", name=re.compile("Download all")).click()
    with tarfile.open(archive.value.path()) as packed:
        packed.extractall(tmp_path / "downloaded", filter="data")
    [model] = (tmp_path / "downloaded").iterdir()
    return model


def wait_for_more(scored: Locator, way: Way, *, than: int) -> int:
    """How many candidates the page says are scored, once they are more, or all."""
    until = time.monotonic() + way.patience_ms / 1000
    while time.monotonic() < until:
        scored.wait_for(timeout=way.patience_ms)
        count = int(scored.inner_text().split()[0].replace(",", ""))
        if count > than or count == way.candidates:
            return count
        time.sleep(0.1)
    raise AssertionError(scored.page.inner_text("main"))


def stock_scores(model: Path, found: evomerge.SearchResult, way: Way) -> dict[str, float]:
    """What stock lm-eval gives a model on the items that the winner was tested on, by task."""
    rows = found.items_dataframe(found.winner.candidate)
    rows = rows[rows["task"].isin(way.measured)].drop_duplicates(["task", "item"])
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        tasks=[*way.measured],
        samples={task: sorted(rows["item"][rows["task"] == task]) for task in way.measured},
        task_manager=TaskManager(include_defaults=False, include_path=str(way.tasks)),
        bootstrap_iters=0,
        device="cpu",
    )
    assert results is not None
    return {
        task: float(np.mean([row[metric] for row in results["samples"][task]]))
        for task, metric in way.measured.items()
    }

"""Jobs that are no search: what their pages show before, while and after they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evomerge.service.database.tables import JobRow
from tests.service.http.house import House
from tests.service.page.browser import Seat
from tests.service.page.conftest import Site
from tests.service.page.ended import Ended
from tests.service.page.test_compare import three

KINDS = {
    "grid": "result",
    "calibration": "result",
    "evaluation": "result",
    "check": "result",
    "export": "files",
}
"""What each writes."""


def rows_of(desk: Seat, name: str) -> list[list[str]]:
    """The rows of a table below its head, each cell on one line."""
    table = desk.page.get_by_role("region", name=name, exact=True)
    table.wait_for()
    return [
        [" ".join(cell.split()) for cell in row.locator("th, td").all_inner_texts()]
        for row in table.locator("tbody tr").all()
    ]


def scored(it: dict[str, Any] | None) -> str:
    return f"{three(it['value'])} {three(it['low'])} to {three(it['high'])}" if it else "–"


def test_a_grid_shows_its_methods_and_models(
    desk: Seat, site: Site, ended: Ended, tmp_path: Path
) -> None:
    job = ended.grid(tmp_path / "tasks")
    site.jobs["grid"] = job.id
    result = desk.fetch(f"jobs/{job.id}")["result"]
    desk.go(f"job/{job.id}")
    assert rows_of(desk, "Methods") == [
        [
            *(row["method"], str(row["experts"]), str(row["merges"]), str(row["failed"])),
            *(scored(row["normalised"]["held_in"]), "–"),
            *(scored(row["normalised"]["held_out"]), "–"),
        ]
        for row in result["rows"]
    ]
    assert result["rows"][0]["normalised"]["held_in"] is not None
    assert rows_of(desk, "Every model") == [
        [
            f"{model['label']} {model['role']}",
            "–",
            *(scored(model["normalised"][side]) for side in ("held_in", "held_out")),
            *(three(metrics["acc"]) for metrics in model["means"].values()),
        ]
        for model in result["models"]
    ]
    told = desk.page.inner_text("main")
    assert "sums_one/acc by first, sums_two/acc by second" in told
    assert f"{result['items']['sums_one']} items of sums_one" in told
    assert desk.fits()
    assert desk.faults() == []


def test_a_calibration_gives_its_files_and_says_how_they_are_used(
    desk: Seat, site: Site, ended: Ended
) -> None:
    job = ended.calibration()
    site.jobs["calibration"] = job.id
    desk.go(f"job/{job.id}")
    assert rows_of(desk, "Statistics") == [["inputs", str(ended.models / "first"), "computed"]]
    use = desk.page.get_by_role("region", name="Use in a search").inner_text()
    assert use == f"models:\n  statistics: job:{job.id}"
    [file] = (job.result or {})["files"]
    desk.page.get_by_role("button", name=f"Download {file['path']}").wait_for()
    assert file["sha256"][:16] in desk.page.get_by_role("region", name="Files").inner_text()
    assert desk.fits()
    assert desk.faults() == []


def test_an_evaluation_and_a_plan_show_their_numbers(desk: Seat, site: Site, ended: Ended) -> None:
    document = ended.document()
    job = ended.job("evaluation", {"job": document, "model": "first", "split": "validation"})
    site.jobs["evaluation"] = job.id
    scores = (job.result or {})["scores"]
    desk.go(f"job/{job.id}")
    assert rows_of(desk, "Scores on the validation items") == [
        [
            f"{ended.models / 'first'} model",
            scored(scores["score"]),
            *(scored(it) for metrics in scores["tasks"].values() for it in metrics.values()),
        ]
    ]
    plan = ended.job("check", {"job": document, "timing": False})
    site.jobs["plan"] = plan.id
    report = (plan.result or {})["report"]
    desk.go(f"job/{plan.id}")
    assert rows_of(desk, "Tasks of the plan") == [
        [
            *(task["name"], ", ".join(task["metrics"])),
            *(str(task["items"][split]) for split in ("search", "validation", "test")),
            three(task["half_width"]["test"]),
        ]
        for task in report["tasks"]
    ]
    low, high = report["forecast"]["total_items"]
    assert f"{low:,} to {high:,}" in desk.page.inner_text("main")


def test_before_there_is_a_result_the_page_says_why(desk: Seat, site: Site) -> None:
    page, house = desk.page, site.house
    for kind, what in KINDS.items():
        job = house.job(kind, name=f"a {kind}", request={})
        site.jobs[f"a {kind}"] = job.id
        desk.go(f"job/{job.id}")
        page.get_by_text("It waits for its turn.", exact=True).wait_for()
        verb = "are" if what == "files" else "is"
        none = f"There {verb} no {what}"
        page.get_by_text(f"{none} yet: it waits for its turn.").wait_for()
        house.set_state(job.id, "running")
        page.get_by_text(f"{none} yet: it runs.").wait_for()
        fail(house, job.id)
        page.get_by_text(f"{none}: the job failed.").wait_for()
        page.get_by_text("models.base: nowhere: no such folder").wait_for()
        page.get_by_role("button", name="Retry").wait_for()


@pytest.mark.parametrize(
    ("kind", "told", "words", "far"),
    [
        (
            "calibration",
            [("progress", {"label": "first.inputs", "done": 3, "count": 128})],
            "first.inputs: 3 of 128 sequences.",
            "3 of 128 sequences",
        ),
        (
            "grid",
            [
                ("work", {"models": 7, "items": 700, "recorded": 2, "searches": 0}),
                *(
                    ("progress", {"step": step, "candidate": f"g0000-i00{n}", "label": "TIES"})
                    for n in range(2)
                    for step in ("scored", "recorded")
                ),
            ],
            "TIES: recorded.",
            "2 of 7 models",
        ),
        ("evaluation", [("note", {"text": "first: scored"})], "first: scored", None),
    ],
)
def test_a_running_job_says_how_far_it_is(
    desk: Seat, site: Site, kind: str, told: list[tuple[str, Any]], words: str, far: str | None
) -> None:
    """Also what it said before the page was opened."""
    job = site.house.job(kind, state="running", name=f"running {kind}", request={})
    site.jobs[f"running {kind}"] = job.id
    for name, body in told[:-1]:
        site.house.tell(job.id, [body], name)
    desk.go(f"job/{job.id}")
    desk.page.get_by_text("There is no result yet: it runs.").wait_for()
    site.house.tell(job.id, [told[-1][1]], told[-1][0])
    desk.page.get_by_text(words, exact=True).wait_for()
    if far:
        desk.page.get_by_text(far, exact=True).wait_for()
    fail(site.house, job.id)


def fail(house: House, job: str) -> None:
    house.set_state(job, "failed")
    with house.database.write() as session:
        row = session.get_one(JobRow, job)
        row.cause, row.message = "input", "models.base: nowhere: no such folder; check the path"

"""A table becomes a task: over the route, and in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.service.page.browser import Seat
from tests.service.page.conftest import Site

if TYPE_CHECKING:
    from tests.service.http.house import House

TABLE = "question,answer\n" + "".join(f"What is {n} + 1?,{n + 1}\n" for n in range(60))


def asked(**changes: Any) -> dict[str, Any]:
    return {"name": "our_sums", "text": TABLE, "project": "default", **changes}


def test_a_task_is_made_and_found(house: House) -> None:
    wording = "{question} {{ 7 * 7 }} {% for x in y %}"  # data, and no template of its own
    kept = house.post("/tasks/from-file", asked(prompt=wording, keep=True)).json()
    assert [each["answer"] for each in kept["prompts"]] == ["1", "2", "3"]
    assert "What is 0 + 1? {{ 7 * 7 }} {% for x in y %}" in kept["prompts"][0]["prompt"]
    assert kept["items"] == 60
    found = {task["name"]: task for task in house.get("/tasks?q=our_sums").json()}
    folder = Path(found["our_sums"]["folder"])
    assert Path(kept["folder"]).is_relative_to(folder)
    assert house.get("/tasks?q=our_sums", who="other").json() == []
    job = {
        "name": "ours",
        "models": {"base": "base", "sources": ["arithmetic", "counting"]},
        "objectives": [{"task": "our_sums", "metric": kept["metric"]}],
        "evaluation": {"task_folders": [kept["folder"]]},
        "budget": {"candidates": 4},
    }
    assert house.post("/jobs/validate", {"kind": "search", "job": job}).status_code == 200
    assert house.post("/tasks/from-file", asked(keep=True)).status_code == 409
    acts = house.get("/audit?act=task.make", who="admin").json()["items"]
    assert [(act["who"], act["what"]) for act in acts] == [("runner", "our_sums")]


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"text": "a,b\n1,2\n"}, 422, "question"),
        ({"name": "../out"}, 422, "name"),
        ({"project": "other"}, 404, "project"),
        ({"prompt": "no place"}, 422, "{question}"),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(
    house: House, changes: dict[str, Any], status: int, words: str
) -> None:
    answer = house.post("/tasks/from-file", asked(keep=True, **changes))
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert words in detail and "\n" not in detail and str(house.settings.data) not in detail
    assert not list(house.settings.data.glob("tasks/*/*"))


def test_a_viewer_makes_no_task(house: House) -> None:
    assert house.post("/tasks/from-file", asked(), who="viewer").status_code == 403


def test_a_table_is_uploaded_looked_at_and_becomes_a_job(desk: Seat, site: Site) -> None:
    page = desk.page
    page.get_by_role("link", name="Your data").click()
    file = {"name": "our sums.csv", "mimeType": "text/csv", "buffer": TABLE.encode()}
    page.get_by_label("File").set_input_files(file)  # type: ignore[arg-type]
    assert page.get_by_label("Name of the task").input_value() == "our_sums"
    page.get_by_label("Right answer").select_option("answer")
    page.get_by_role("button", name="Show three prompts").click()
    page.get_by_role("button", name="Make the task").wait_for()
    assert desk.fetch("tasks?q=our_sums") == []  # nothing is kept yet
    assert page.get_by_role("region", name="Prompt of").count() == 3
    page.get_by_role("button", name="Make the task").click()
    page.get_by_role("link", name="New search with this task").click()
    page.get_by_label("Task", exact=True).wait_for()
    assert page.get_by_label("Task", exact=True).input_value() == "our_sums"
    page.get_by_label("Name").fill("ours")
    page.get_by_label("Base model").fill("base")
    page.get_by_role("checkbox", name="arithmetic").check()
    page.get_by_role("checkbox", name="counting").check()
    page.get_by_text("The server would accept this job.").wait_for()

"""A table becomes a task by the process itself: over the routes, and in the browser."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.service.http.tables import send
from tests.service.page.browser import Seat
from tests.service.page.conftest import Site

if TYPE_CHECKING:
    from tests.service.http.house import House

QUESTIONS = ["=1+1 {{ 7 * 7 }} {% for x in y %}", *(f"What is {n} + 1?" for n in range(59))]
ANSWERS = [str(n) for n in range(60)]


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"question": QUESTIONS, "answer": ANSWERS}), out)
    return out.getvalue()


def test_a_task_is_made_and_found(house: House) -> None:
    upload = send(house, parquet(), "sums.csv").json()
    assert (upload["format"], upload["rows"]) == ("parquet", 60)
    wording = "{question} {{ 7 * 7 }} {% for x in y %}"  # data, and no template of its own
    form = {"upload": upload["id"], "name": "our_sums", "prompt": wording, "keep": True}
    kept = house.post("/tasks/from-file", {**form, "models": ["base"]}).json()
    assert [each["answer"] for each in kept["prompts"]] == ["0", "1", "2"]
    assert {each["model"] for each in kept["prompts"]} == {"base"}
    said = f"{QUESTIONS[0]} {{{{ 7 * 7 }}}} {{% for x in y %}}"
    assert said in kept["prompts"][0]["prompt"]
    assert kept["items"] == 60
    folder = Path(kept["folder"])
    lines = (folder / "items.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["question"] == QUESTIONS[0]
    assert "from `sums.csv`" in (folder / "README.md").read_text()
    found = {task["name"]: task for task in house.get("/tasks?q=our_sums").json()}
    assert folder.is_relative_to(found["our_sums"]["folder"])
    assert house.get("/tasks?q=our_sums", who="other").json() == []
    job = {
        "name": "ours",
        "models": {"base": "base", "sources": ["arithmetic", "counting"]},
        "objectives": [{"task": "our_sums", "metric": kept["metric"]}],
        "evaluation": {"task_folders": [kept["folder"]]},
        "budget": {"candidates": 4},
    }
    assert house.post("/jobs/validate", {"kind": "search", "job": job}).status_code == 200
    acts = house.get("/audit?act=task.make", who="admin").json()["items"]
    assert [(act["who"], act["what"]) for act in acts] == [("runner", "our_sums")]


@pytest.mark.parametrize(
    ("text", "form", "field"),
    [
        ("a,b\n1,2\n", {}, "question"),
        ("question,answer\n1,2\n", {"answer": "b"}, "answer"),
        ("question,answer\n", None, "upload"),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(
    house: House, text: str, form: dict[str, Any] | None, field: str
) -> None:
    answer = send(house, text.encode())
    if form is not None:
        asked = {"upload": answer.json()["id"], "name": "ours", "keep": True, **form}
        answer = house.post("/tasks/from-file", asked)
    said = answer.json()
    assert (answer.status_code, said["field"]) == (422, field), said
    assert "sums.csv" in said["detail"] and "--" not in said["detail"]
    assert "\n" not in said["detail"] and str(house.settings.data) not in said["detail"]
    assert not list(house.settings.data.glob("tasks/*/*"))
    assert not list(house.settings.data.glob(".making-*"))


def test_a_table_is_uploaded_looked_at_and_becomes_a_job(desk: Seat, site: Site) -> None:
    page = desk.page
    page.get_by_role("link", name="Your data").click()
    zipped = {"name": "a.csv", "mimeType": "text/csv", "buffer": b"PK\x03\x04" + bytes(2**20)}
    page.get_by_label("File").set_input_files(zipped)  # type: ignore[arg-type]
    page.get_by_text("save the sheet as CSV").wait_for()
    file = {"name": "our sums.parquet", "mimeType": "text/csv", "buffer": parquet()}
    page.get_by_label("File").set_input_files(file)  # type: ignore[arg-type]
    assert page.get_by_label("Name of the task").input_value() == "our_sums"
    page.get_by_label("Right answer").select_option("answer")
    page.get_by_role("button", name="Show three prompts").click()
    page.get_by_role("button", name="Make the task").wait_for()
    assert desk.fetch("tasks?q=our_sums") == []  # nothing is kept yet
    assert page.get_by_role("region", name="Prompt of").count() == 3
    page.get_by_role("button", name="Make the task").click()
    page.get_by_role("link", name="New search with this task").wait_for()
    page.get_by_role("button", name="Delete the upload our sums.parquet").click()
    page.get_by_role("button", name="Delete it").click()
    page.get_by_text("Its tasks stay: our_sums.").wait_for()
    page.get_by_text("Nothing is uploaded yet.").wait_for()
    assert desk.faults() == []
    page.get_by_role("region", name="Tasks").get_by_role("link", name="New search").click()
    page.get_by_label("Task", exact=True).wait_for()
    assert page.get_by_label("Task", exact=True).input_value() == "our_sums"
    page.get_by_label("Name").fill("ours")
    page.get_by_label("Base model").fill("base")
    page.get_by_role("checkbox", name="arithmetic").check()
    page.get_by_role("checkbox", name="counting").check()
    page.get_by_text("The server would accept this job.").wait_for()

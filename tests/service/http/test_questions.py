"""Tasks made of uploads: two requests for one name, models, the list, and what keeps one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from evomerge.service.http import made_tasks, table_process
from tests.service.http.house import JOB, MODELS, House
from tests.service.http.tables import FACTS, MADE, Process, send


def asked(house: House, **changes: Any) -> dict[str, Any]:
    upload = send(house, b"question,answer\n1,2\n").json()["id"]
    return {"upload": upload, "name": "ours", "keep": True, **changes}


def test_the_whole_form_reaches_the_process_and_models_are_the_operators(
    house: House, process: Process
) -> None:
    form = {
        "question": "question",
        "answer": "answer",
        "choices": ["a", "b"],
        "context": "none",
        "kind": "exact",
        "prompt": "{question}?",
        "stop": [";"],
        "max_tokens": 8,
        "fewshot": 2,
        "count_from": 1,
        "within": 0.1,
    }
    answer = house.post("/tasks/from-file", asked(house, **form, models=["base"]))
    said = answer.json()
    assert answer.status_code == 200, said
    assert process.read == b"question,answer\n1,2\n"
    reading = {"encoding": None, "delimiter": None, "header": True, "shown_as": "sums.csv"}
    models = [str(MODELS / "base")]
    assert process.asked == {**form, **reading, "name": "ours", "models": models}
    assert [each["model"] for each in said["prompts"]] == ["base"]
    assert said["checks"][0]["sentence"] == "base: too long for `fewshot`"
    assert said["reason"] == "give `kind` contains"
    for model, field in (("/etc", "models.1"), ("../base/../..", "models.1")):
        refused = house.post("/tasks/from-file", asked(house, name="b", models=["base", model]))
        assert (refused.status_code, refused.json()["field"]) == (422, field)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"choices": 5}, "choices"),
        ({"stop": [""]}, "stop.0"),
        ({"count_from": 2}, "count_from"),
        ({"columns": {}}, "columns"),
        ({"name": "../out"}, "name"),
    ],
)
def test_a_refusal_of_the_form_names_its_own_field(
    house: House, process: Process, changes: dict[str, Any], field: str
) -> None:
    answer = house.post("/tasks/from-file", asked(house, **changes))
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.json()


def test_made_tasks_are_listed_with_their_origin_and_deleted(
    house: House, process: Process
) -> None:
    form = asked(house)
    folder = Path(house.post("/tasks/from-file", form).json()["folder"])
    again = house.post("/tasks/from-file", {**form, "name": "another"})
    assert again.status_code == 200
    older = house.settings.made_tasks(house.projects["default"]) / "older"
    older.mkdir()  # made before notes were kept
    first = house.get("/tasks/made?limit=2").json()
    rest = house.get(f"/tasks/made?limit=2&cursor={first['cursor']}").json()
    assert first["total"] == 3 and rest["cursor"] is None
    listed = [*first["items"], *rest["items"]]
    assert [each["name"] for each in listed] == ["another", "older", "ours"]
    assert listed[1]["upload"] is None
    ours = listed[2]
    assert (ours["upload"], ours["file"], ours["owner"]) == (form["upload"], "sums.csv", "runner")
    assert ours["folder"] == str(folder) and ours["made"] and ours["jobs"] == []
    assert house.get("/tasks/made", who="other").json()["items"] == []
    assert house.get("/tasks/made?project=other").status_code == 404

    assert house.get(f"/uploads/{form['upload']}").json()["tasks"] == ["another", "ours"]
    gone = house.ask("DELETE", f"/uploads/{form['upload']}").json()
    assert gone["tasks"] == ["another", "ours"]
    assert folder.is_dir()  # with its own copy of the items
    assert house.post("/tasks/from-file", {**form, "name": "late"}).status_code == 404

    where = "/tasks/made/ours?project=default"
    assert house.ask("DELETE", where, "viewer").status_code == 403
    assert house.ask("DELETE", where, "other").status_code == 404
    for name in ("nothing", "a%2fb", ".hidden"):
        assert house.ask("DELETE", f"/tasks/made/{name}").status_code == 404
    assert house.ask("DELETE", where).status_code == 204
    assert not folder.exists() and not list(house.settings.data.glob(".going-*"))
    assert house.ask("DELETE", where).status_code == 404
    [act] = house.get("/audit?act=task.delete", who="admin").json()["items"]
    assert (act["who"], act["what"]) == ("runner", "ours")


@pytest.mark.parametrize("above", [False, True], ids=["its folder", "the folder above"])
@pytest.mark.parametrize("state", ["queued", "running", "paused"])
def test_a_task_that_a_job_needs_stays(
    house: House, process: Process, above: bool, state: str
) -> None:
    folder = Path(house.post("/tasks/from-file", asked(house)).json()["folder"])
    request = {
        **JOB,
        "objectives": [{"task": "ours", "metric": "exact_match"}],
        "evaluation": {"task_folders": [str(folder.parent if above else folder)]},
    }
    job = house.job(state=state, request=request)
    house.job(request={**request, "evaluation": {}})  # a task of this name elsewhere
    assert house.get("/tasks/made").json()["items"][0]["jobs"] == [job.id]
    answer = house.ask("DELETE", "/tasks/made/ours")
    assert (answer.status_code, job.id in answer.json()["detail"]) == (409, True)
    assert "cancel" in answer.json()["mend"] and folder.is_dir()
    house.set_state(job.id, "succeeded")
    assert house.ask("DELETE", "/tasks/made/ours").status_code == 204


def test_of_two_requests_for_one_name_the_second_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = house.settings.made_tasks(house.projects["default"]) / "ours"

    def make(_file: io.BytesIO, out: Path | None, *_: Any) -> dict[str, Any]:
        if out is None:
            return dict(FACTS)
        out.mkdir()
        kept.mkdir(parents=True)  # the other request is faster
        (kept / "first.yaml").touch()
        return MADE

    monkeypatch.setattr(table_process, "run", make)
    answer = house.post("/tasks/from-file", asked(house))
    assert (answer.status_code, answer.json()["field"]) == (409, "name")
    assert [path.name for path in kept.iterdir()] == ["first.yaml"]


def test_a_note_that_is_damaged_hides_no_task(house: House, process: Process) -> None:
    folder = Path(house.post("/tasks/from-file", asked(house)).json()["folder"])
    (folder / made_tasks.NOTE).write_text("[")
    [task] = house.get("/tasks/made").json()["items"]
    assert (task["name"], task["upload"]) == ("ours", None)

"""What may leave the server by the routes: to the operator's trackers, and to the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from evomerge import errors
from evomerge.service.queue import states
from evomerge.service.queue.states import Ending
from evomerge.track import TrackerKind, registry
from tests.service.http.house import JOB, House, open_house

SECRET = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_standinstandinstandin"
NEW: Mapping[str, Any] = {"kind": "search", "job": JOB}


@pytest.fixture
def house(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    def make(project: str | None = None, account: str | None = None) -> Any:
        raise AssertionError("a server makes none")

    shown = TrackerKind(name="shown", make=make, names=("project",))
    monkeypatch.setitem(registry.BUILT_IN, "shown", shown)
    monkeypatch.setenv("SHOWN_API_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    errors.environment_secrets.cache_clear()
    allowed = {
        "trackers": {"tensorboard": {"dir": "/srv/boards"}, "shown": {"account": "at.example"}},
        "push_organisations": ("acme",),
    }
    opened = open_house(tmp_path / "data", template, allowed=allowed)
    with opened.client:
        yield opened
    opened.database.close()
    errors.environment_secrets.cache_clear()


def test_what_the_operator_allows_is_listed_and_what_is_fixed_is_not(house: House) -> None:
    trackers, hub = house.get("/trackers"), house.get("/hub")
    assert trackers.json() == [
        {"name": "tensorboard", "options": []},
        {"name": "shown", "options": ["project"]},
    ]
    assert hub.json() == {"organisations": ["acme"], "public": False}
    assert "boards" not in trackers.text and "example" not in trackers.text


def test_trackers_are_kept_with_a_job_beside_its_job_file(house: House) -> None:
    track = {"shown": {"project": "mine"}, "tensorboard": {}}
    assert house.post("/jobs/validate", {**NEW, "track": track}).status_code == 200
    made = house.post("/jobs", {**NEW, "track": track})
    assert made.status_code == 201, made.text
    job = made.json()
    assert job["track"] == track
    assert "track" not in job["request"]
    assert house.get(f"/jobs/{job['id']}").json()["track"] == track
    assert house.post(f"/jobs/{job['id']}/clone").json()["track"] == track
    assert house.post(f"/jobs/{job['id']}/clone", {"track": {}}).json()["track"] == {}
    house.post(f"/jobs/{job['id']}/pause")
    assert house.post(f"/jobs/{job['id']}/resume").json()["track"] == track
    house.post(f"/jobs/{job['id']}/pause")
    other = house.post(f"/jobs/{job['id']}/resume", {"track": {"tensorboard": {}}})
    assert other.json()["track"] == {"tensorboard": {}}


@pytest.mark.parametrize(
    ("track", "field"),
    [
        ({"wandb": {}}, "track"),
        ({"tensorboard": {"dir": "/etc"}}, "track"),
        ({"shown": {"account": "http://169.254.169.254"}}, "track"),
        ({"shown": {"project": "../a"}}, "track.shown.project"),
        ({"shown": {"project": 1}}, "track.shown.project"),
        ({"shown": None}, "track.shown"),
        (["shown"], "track"),
        ({"a" * 101: {}}, "track." + "a" * 101),
    ],
)
def test_a_refused_tracker_is_a_problem_with_field_and_mend(
    house: House, track: Any, field: str
) -> None:
    for path in ("/jobs", "/jobs/validate"):
        answer = house.post(path, {**NEW, "track": track})
        assert answer.status_code == 422, answer.text
        problem = answer.json()
        assert problem["field"] == field or field.startswith("track.aaa")
        assert problem["mend"]
        assert "boards" not in answer.text and "at.example" not in answer.text


def test_only_what_searches_is_tracked(house: House) -> None:
    answer = house.post("/jobs", {"kind": "check", "job": JOB, "track": {"tensorboard": {}}})
    assert (answer.status_code, answer.json()["field"]) == (422, "track")
    search = house.searched()
    export = house.post(f"/jobs/{search.id}/exports").json()["id"]
    answer = house.post(f"/jobs/{export}/clone", {"track": {"tensorboard": {}}})
    assert (answer.status_code, answer.json()["field"]) == (422, "track")


def test_a_push_is_a_part_of_an_export_and_of_its_copies(house: House) -> None:
    search = house.searched()
    exports = f"/jobs/{search.id}/exports"
    made = house.post(exports, {"push": "Acme/kana"})
    assert made.status_code == 201, made.text
    assert made.json()["request"]["push"] == "acme/kana"
    copy = house.post(f"/jobs/{made.json()['id']}/clone")
    assert copy.json()["request"]["push"] == "acme/kana"
    for wanted, field in (
        ({"push": "other/kana"}, "push"),
        ({"push": "acme/a/b"}, "push"),
        ({"push": "acme/kana", "public": True}, "public"),
        ({"public": True}, "public"),
    ):
        answer = house.post(exports, wanted)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert answer.json()["mend"]
    changed = house.post(f"/jobs/{made.json()['id']}/clone", {"set": {"push": "other/kana"}})
    assert (changed.status_code, changed.json()["field"]) == (422, "push")


def test_no_secret_of_the_servers_environment_is_told(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if a library had put one into an error: it is in the job, its log and its events."""
    job = house.job(state="running")
    said = f"refused: key {SECRET}, token {TOKEN}, at https://me:{SECRET[:12]}@tracker.example"
    house.tell(job.id, [{"text": errors.hide_secrets(said)}])
    states.finish(
        house.database,
        job.id,
        1,
        Ending(outcome="failed", cause="input", message=said),
        backoff_s=0.0,
    )
    house.settings.log_file(job.id).write_text(f"{said}\n" + "x" * 70 + SECRET)
    search = house.searched()
    everything = [
        house.get(f"/jobs/{job.id}").text,
        house.get(f"/jobs/{job.id}/events").text,
        house.get(f"/jobs/{job.id}/logs").text,
        house.post("/jobs", {**NEW, "track": {"shown": {"project": f"{SECRET}/a"}}}).text,
        house.post(f"/jobs/{search.id}/exports", {"push": f"acme/{SECRET}/a"}).text,
        house.post(f"/jobs/{search.id}/exports", {"push": f"{TOKEN}/a"}).text,
        house.get("/trackers").text,
        house.get("/audit", "admin").text,
    ]
    printed = capsys.readouterr()
    for text in (*everything, printed.out, printed.err):
        assert SECRET[:12] not in text
        assert TOKEN not in text

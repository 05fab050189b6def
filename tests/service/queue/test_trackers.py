"""In which trackers a job may be shown, what of them is the operator's, and what a copy keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import InputError
from evomerge.service.database.engine import Database
from evomerge.service.queue import moves
from evomerge.service.queue.admission import admit, admit_and_submit, clone
from evomerge.service.queue.trackers import free_names, usable
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import audit, jobs
from evomerge.service.store.people import Project
from evomerge.service.store.refusals import Conflict, Refusal
from evomerge.track import TrackerKind, allow_trackers, registry
from tests.service.jobs import ADMIN, new_job, queued, settings_in


@pytest.fixture
def kind() -> str:
    return "sqlite"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """TensorBoard, and one whose account is the operator's and whose projects are not."""

    def make(project: str | None = None, account: str | None = None) -> Any:
        raise AssertionError("nothing is made before a job runs")

    shown = TrackerKind(name="shown", make=make, names=("project",))
    fixed = TrackerKind(name="fixed", make=make, names=("project",))
    for each in (shown, fixed):
        monkeypatch.setitem(registry.BUILT_IN, each.name, each)
    allowed = allow_trackers(
        ["tensorboard", "shown:account=https://tracker.example", "fixed:project=ours"]
    )
    return settings_in(tmp_path, trackers=allowed)


Admit = Callable[[Any], Any]


@pytest.fixture
def admitted(database: Database, project: Project, settings: ServiceSettings) -> Admit:
    return lambda track: admit(database, new_job(project.id, track=track), settings).track


def refused(act: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    assert caught.value.mend and "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "track",
    [
        {},
        {"tensorboard": {}},
        {"shown": {"project": "合成 2.1-b_c"}, "tensorboard": {}, "fixed": {}},
    ],
)
def test_trackers_of_the_operator_are_chosen_with_names_in_them(
    admitted: Admit, track: Any
) -> None:
    assert admitted(track) == track


@pytest.mark.parametrize(
    ("track", "field", "value"),
    [
        ({"mlflow": {}}, "track", "mlflow"),
        ({"\ud800": {}}, "track", "\ud800"),
        ({"tensorboard": {"dir": "/etc"}}, "track", "dir"),
        ({"shown": {"account": "http://169.254.169.254"}}, "track", "account"),
        ({"shown": {"api_key": "abc"}}, "track", "api_key"),
        ({"fixed": {"project": "mine"}}, "track", "project"),
        *(
            ({"shown": {"project": name}}, "track.shown.project", name)
            for name in (
                *("", "a/b", "../a", ".a", "a\\b", "/etc", "~", "a\nb", "a:b", "http://a.b"),
                *("-a", " a", "a ", "a.", "{x}", "a?b", "a#b", "x" * 101, "a\u202eb", "\ud800"),
            )
        ),
    ],
)
def test_a_path_an_address_or_a_secret_is_never_taken(
    admitted: Admit, track: Any, field: str, value: str
) -> None:
    refusal = refused(lambda: admitted(track))
    assert (refusal.field, refusal.value) == (field, value)


def test_what_may_be_given_is_told_without_what_is_fixed(settings: ServiceSettings) -> None:
    found = {name: free_names(name, settings) for name in settings.trackers}
    assert found == {"tensorboard": (), "shown": ("project",), "fixed": ()}


def test_a_job_that_does_not_search_has_none(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    job = new_job(project.id, kind="check", request={}, track={"tensorboard": {}})
    assert "does not search" in str(refused(lambda: admit(database, job, settings)))


def test_without_leave_the_mend_is_the_operators(
    database: Database, project: Project, tmp_path: Path
) -> None:
    job = new_job(project.id, track={"tensorboard": {}})
    refusal = refused(lambda: admit(database, job, settings_in(tmp_path)))
    assert "--allow-tracker" in refusal.mend


def test_a_package_that_is_missing_is_refused_with_the_mend(
    admitted: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    refusal = refused(lambda: admitted({"tensorboard": {}}))
    assert "pip install 'evomerge[tensorboard]'" in refusal.mend
    assert (refusal.field, refusal.value) == ("track", "tensorboard")


def test_what_is_no_longer_allowed_is_left_out_of_a_search_and_said(
    settings: ServiceSettings,
) -> None:
    track = {"shown": {"project": "mine"}, "gone": {}}
    wishes, [said] = usable(track, settings)
    assert wishes == {"shown": {"project": "mine", "account": "https://tracker.example"}}
    assert said.startswith("track: gone: not a tracker of this service")


def test_a_copy_a_retry_and_a_resume_keep_trackers_or_change_them(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    track = {"shown": {"project": "mine"}}
    job, _ = admit_and_submit(database, new_job(project.id, track=track), settings, who=ADMIN)
    assert clone(database, job.id, settings, who=ADMIN)[0].track == track
    assert clone(database, job.id, settings, who=ADMIN, run={"track": {}})[0].track == {}
    refused(lambda: clone(database, job.id, settings, who=ADMIN, run={"track": {"gone": {}}}))

    def move(wanted: Any, **options: Any) -> Any:
        return moves.wish(database, job.id, wanted, settings=settings, who=ADMIN, **options).track

    move("cancel")
    assert moves.retry(database, job.id, who=ADMIN).track == track
    move("pause")
    assert move("run") == track
    move("pause")
    refused(lambda: move("run", track={"gone": {}}))
    assert move("run", track={"tensorboard": {}}) == {"tensorboard": {}}
    kept = audit.find(database).items
    assert [e.detail["track"] for e in kept if e.act == "job.resume" and "track" in e.detail] == [
        ["tensorboard"]
    ]
    submitted = [e.detail.get("track") for e in kept if e.act == "job.submit"]
    assert submitted.count(["shown"]) == 2


def test_the_trackers_of_a_running_search_cannot_change(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    job = queued(database, project.id)
    with database.write() as session:
        jobs.locked(session, job.id).state = "running"
    with pytest.raises(Conflict, match="pause it first"):
        moves.wish(database, job.id, "run", settings=settings, who=ADMIN, track={})


def test_one_key_is_for_one_choice_of_trackers(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    new = new_job(project.id, idempotency="once", track={"tensorboard": {}})
    first, _ = admit_and_submit(database, new, settings, who=ADMIN)
    again, made = admit_and_submit(database, new, settings, who=ADMIN)
    assert (again.id, made) == (first.id, False)
    other = new_job(project.id, idempotency="once")
    with pytest.raises(Conflict):
        admit_and_submit(database, other, settings, who=ADMIN)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["nothing"], "--allow-tracker: nothing is not an installed tracker"),
        (["shown:x=1"], "--allow-tracker shown: no option x; it has project, account"),
        (["shown", "shown"], "--allow-tracker shown: is given twice"),
        (["tensorboard:dir=/no/such"], "tensorboard: dir=/no/such: no such folder"),
        (["wandb:mode=disabled"], "wandb: mode=disabled: write online or offline"),
        (["mlflow"], "mlflow: no address; write mlflow:uri=URL, or set MLFLOW_TRACKING_URI"),
        (["mlflow:uri=sqlite:///x.db"], "not the address of a server"),
        (["mlflow:uri=./runs"], "not the address of a server"),
        (["mlflow:uri=https://a:secret@b.c"], "a password on a command line can be seen"),
    ],
)
@pytest.mark.usefixtures("settings")
def test_what_an_operator_gives_is_checked_when_the_server_starts(
    given: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(InputError) as caught:
        allow_trackers(given)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_an_operator_gives_does_not_depend_on_the_folder_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boards").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    allowed = allow_trackers(["tensorboard:dir=boards", "mlflow", "wandb:entity=us,mode=offline"])
    assert allowed == {
        "tensorboard": {"dir": str(tmp_path / "boards")},
        "mlflow": {},
        "wandb": {"entity": "us", "mode": "offline"},
    }
    settings = settings_in(tmp_path, trackers=allowed)
    assert ServiceSettings.from_json(settings.to_json()).trackers == allowed

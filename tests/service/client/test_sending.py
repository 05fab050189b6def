"""`--track` and `--push` of jobs on a server, by the client, the command line and `serve`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner, Result

import evomerge
from evomerge.cli import app
from evomerge.cli import remote as commands
from evomerge.errors import InputError
from evomerge.service.client import remote
from evomerge.service.client.connection import Connection
from evomerge.service.store import jobs
from evomerge.track import registry
from tests.service.http.house import JOB, ROOT, URL, House, open_house

LINK = "https://hub.example/acme/kana"


@pytest.fixture
def house(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("HF_TOKEN", "hf_standinstandinstandin")
    monkeypatch.chdir(ROOT)
    allowed = {"trackers": {"tensorboard": {}}, "push_organisations": ("acme",)}
    opened = open_house(tmp_path / "data", template, allowed=allowed)
    with opened.client:
        yield opened
    opened.database.close()


@pytest.fixture
def server(house: House) -> Iterator[remote.Server]:
    transport = house.client._transport
    with evomerge.connect(URL, token=house.tokens["runner"], transport=transport) as opened:
        yield opened


@pytest.fixture
def run(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def reach(url: str, token: str, **_: object) -> Connection:
        return Connection(url, token, transport=house.client._transport)

    monkeypatch.setattr(remote, "Connection", reach)
    monkeypatch.setenv("EVOMERGE_TOKEN", house.tokens["runner"])
    importlib.import_module("evomerge.cli.commands")  # gives it the group `task`

    def call(*arguments: str) -> Result:
        rest = commands.take_server(["--server", URL, *arguments])
        assert rest is not None
        return CliRunner().invoke(commands.remote, rest)

    return call


@pytest.mark.parametrize("track", ["tensorboard", ["tensorboard"], {"tensorboard": None}])
def test_trackers_are_named_in_python_as_for_a_search_here(
    server: remote.Server, track: Any
) -> None:
    job = server.search(JOB, track=track)
    assert job.facts["track"] == {"tensorboard": {}}
    assert job.pause().resume(track=[]).facts["track"] == {}
    assert job.pause().resume(track=track).facts["track"] == {"tensorboard": {}}
    assert job.pause().resume().facts["track"] == {"tensorboard": {}}
    with pytest.raises(InputError, match="not a tracker of this service; name tensorboard"):
        server.search(JOB, track="a_tracker_that_is_not_installed_here")
    with pytest.raises(InputError, match="not an option of tensorboard that a job may give"):
        server.search(JOB, track={"tensorboard": {"dir": "/etc"}})


def test_trackers_are_named_on_the_command_line_as_for_a_search_here(
    house: House, run: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(JOB))
    made = run("search", str(file), "--detach", "--track", "tensorboard")
    assert made.exit_code == 0, made.output
    job = made.stdout.strip()
    assert house.get(f"/jobs/{job}").json()["track"] == {"tensorboard": {}}
    refused = run("search", str(file), "--detach", "--track", "tensorboard:dir=/etc")
    assert refused.exit_code == 2
    assert "evomerge: track: dir: not an option of tensorboard that a job may" in refused.stderr
    assert run("pause", job).exit_code == 0
    refused = run("resume", job, "--detach", "--track", "wandb")
    assert "track: wandb: not a tracker of this service" in refused.stderr
    assert run("resume", job, "--detach", "--track", "tensorboard").exit_code == 0


def test_a_push_is_asked_for_and_its_link_is_shown(
    house: House, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = house.searched()
    report = {
        "label": "winner",
        "opening": "It gained.",
        "weights": {"files": [], "tensors": 3, "size_bytes": 2, "notes": []},
        "url": LINK,
    }
    asked: dict[str, Any] = {}

    def ended_at_once(server: Any, job: Any, **_: object) -> None:
        asked.update(job.facts["request"])
        done = house.exported({"config.json": b"{}"})
        with house.database.write() as session:
            jobs.locked(session, done.id).result = {"report": report}
        job.facts = house.get(f"/jobs/{done.id}").json()

    monkeypatch.setattr(commands, "watch_events", ended_at_once)
    out = tmp_path / "out"
    ended = run("export", search.id, "--out", str(out), "--push", "acme/kana")
    assert ended.exit_code == 0, ended.output
    assert f"uploaded: {LINK}" in ended.stdout
    assert (out / "config.json").read_bytes() == b"{}"
    assert (asked["push"], asked["public"]) == ("acme/kana", False)
    out = str(tmp_path / "other")
    refused = run("export", search.id, "--out", out, "--push", "acme/kana", "--public")
    assert refused.exit_code == 2
    assert "this service pushes private repositories only" in refused.stderr
    assert "ask the operator for --allow-public-push" in refused.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--allow-tracker", "tensorbord"], "did you mean tensorboard?"),
        (["--allow-tracker", "tensorboard:dir=/no/such"], "dir=/no/such: no such folder"),
        (["--allow-push", "acme/kana"], "not an organisation of the hub; write its name alone"),
        (["--allow-push", "*"], "not an organisation of the hub; write its name alone"),
        (["--allow-push", "acme"], "there is no token of the hub; set HF_TOKEN, or run"),
    ],
)
def test_serve_refuses_what_it_could_not_do(
    options: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    ended = CliRunner().invoke(app, ["serve", str(tmp_path / "data"), *options])
    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"evomerge: {options[0]}")
    assert says in ended.stderr
    assert not (tmp_path / "data").exists()


def test_serve_refuses_a_tracker_whose_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    data = str(tmp_path / "data")
    ended = CliRunner().invoke(app, ["serve", data, "--allow-tracker", "tensorboard"])
    assert ended.exit_code == 2
    assert "tensorboardX is not installed; install the extra `tensorboard`" in ended.stderr

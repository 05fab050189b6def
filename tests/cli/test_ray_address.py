"""The address of a cluster reaches what runs there, from every command and every kind of job."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from evomerge import api
from evomerge.cli import app
from evomerge.service.runner import work

ADDRESS = "127.0.0.2:6380"


class Asked(Exception):
    """What a function of the library was asked."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(**options: Any) -> None:
        raise Asked(options["ray_address"])

    for name in ("search", "resume", "grid", "check", "evaluate", "calibrate", "export"):
        monkeypatch.setattr(api, name, lambda *given, **options: ask(**options))


@pytest.mark.parametrize(
    "arguments",
    [
        "search job.yaml",
        "resume run",
        "grid grid.yaml",
        "check job.yaml",
        "evaluate model job.yaml",
        "calibrate model --text text --out out",
        "export run --out out --verify",
    ],
)
def test_a_command_passes_it_on(asked: None, arguments: str) -> None:
    for given, wanted in (([], None), (["--ray-address", ADDRESS], ADDRESS)):
        result = CliRunner().invoke(app, [*arguments.split(), *given])
        assert isinstance(result.exception, Asked), result.output
        assert result.exception.args == (wanted,)


@pytest.mark.parametrize("kind", sorted(work.WORK))
def test_a_job_of_a_server_runs_on_its_cluster(
    asked: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: Any
) -> None:
    monkeypatch.setattr(work, "SearchTeller", lambda attempt: None)
    settings = SimpleNamespace(
        ray_address=ADDRESS,
        run_dir=lambda job: tmp_path / "runs" / job,
        export_dir=lambda job: tmp_path / "exports" / job,
    )
    keys = ("trial", "point", "as_adapter", "rank", "within", "timing", "split", "push", "public")
    request = {"job": {}, "model": "first", "models": ["first"], "text": "text", "verify": True}
    request["name"] = "sums"
    if kind != "calibration":
        request.update(dict.fromkeys(keys))
    attempt: Any = SimpleNamespace(
        settings=settings,
        job=SimpleNamespace(id="job", parent="search", changes={}, track={}),
        request=request,
        say=print,
        tell=print,
    )
    with pytest.raises(Asked, match=ADDRESS):
        work.WORK[kind](attempt)


def test_an_export_that_verifies_nothing_has_nothing_to_run_there(tmp_path: Path) -> None:
    options = ("--out", str(tmp_path / "out"), "--ray-address", ADDRESS)
    result = CliRunner().invoke(app, ["export", str(tmp_path), *options])
    assert result.exit_code == 2
    assert result.stderr == (
        "evomerge: --ray-address: only the verification runs on a cluster; give --verify too\n"
    )

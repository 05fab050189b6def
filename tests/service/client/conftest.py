"""A service in this process, and clients that reach it without a network."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from evomerge.cli import remote as commands
from evomerge.service.client import connection, downloading, job, remote
from evomerge.service.client.connection import Connection
from tests.service.http.conftest import house, process, template
from tests.service.http.house import ROOT, URL, House

__all__ = ["house", "process", "template"]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token of whoever runs the tests; no waits between tries; records name models from here."""
    monkeypatch.delenv("EVOMERGE_TOKEN", raising=False)
    monkeypatch.setenv("EVOMERGE_TOKEN_FILE", str(tmp_path / "tokens"))
    for module in (connection, downloading, job):
        monkeypatch.setattr(module, "TRIES_S", (0.0,) * 5)
    monkeypatch.chdir(ROOT)


@pytest.fixture
def run(house: House, alone: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command of `evomerge --server URL`."""

    def reach(url: str, token: str, **_: object) -> Connection:
        return Connection(url, token, transport=house.client._transport)

    monkeypatch.setattr(remote, "Connection", reach)
    monkeypatch.setenv("EVOMERGE_TOKEN", house.tokens["runner"])

    importlib.import_module("evomerge.cli.commands")  # gives it all its commands

    def call(*arguments: str, **kwargs: Any) -> Result:
        rest = commands.take_server(["--server", URL, *arguments])
        assert rest == list(arguments)
        return CliRunner().invoke(commands.remote, rest, **kwargs)

    return call

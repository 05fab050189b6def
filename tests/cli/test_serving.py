"""What `evomerge serve` does where what it prints cannot be written."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from evomerge.cli import serving


def _no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], list[str]]:
    """What a server did that has made this first token, while stdout is full."""

    def run_with(first_token: str | None) -> list[str]:
        done: list[str] = []

        def run(*, listening: Callable[[], object]) -> None:
            listening()
            done.append("served")

        @contextlib.contextmanager
        def opened(*_: object) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(first_token=first_token, url="http://127.0.0.1:1", run=run)
            done.append("closed")

        monkeypatch.setattr("evomerge.service.open_server", opened)
        monkeypatch.setattr(serving, "share_heap", lambda: None)
        monkeypatch.setattr(serving, "leave_quickly", lambda: None)
        monkeypatch.setattr(serving, "drop_output", lambda: done.append("dropped"))
        monkeypatch.setattr(serving, "say", _no_room)
        with contextlib.suppress(typer.Exit):
            serving.serve(data=Path("my data"))
        return done

    return run_with


def test_a_server_that_cannot_say_that_it_listens_serves(
    ran: Callable[[str | None], list[str]],
) -> None:
    assert ran(None) == ["dropped", "served", "closed"]


def test_a_first_token_that_cannot_be_printed_is_said_to_be_lost(
    ran: Callable[[str | None], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran("evm_secret") == ["closed"]
    said = capsys.readouterr().err
    assert said.startswith("evomerge: the token of the first admin could not be printed (No space")
    assert "evomerge token make NAME --role admin --data 'my data'" in said
    assert "evm_secret" not in said


def test_a_proxy_is_an_address_and_in_front(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        serving.serve(data=Path("d"), trusted_proxy=["::1"])
    assert "--trusted-proxy: it needs --behind-proxy too" in capsys.readouterr().err
    for given in ("proxy.internal", "*", ""):
        with pytest.raises(typer.Exit):
            serving.serve(
                data=Path("d"), behind_proxy=True, trusted_proxy=["10.0.0.0/8", "::1", given]
            )
        assert f"--trusted-proxy {given}: no address; give" in capsys.readouterr().err

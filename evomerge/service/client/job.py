"""A job on a server as a Python object: watched, moved, its result and its export taken."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from evomerge.errors import InputError, StorageError
from evomerge.service.client.connection import TRIES_S, Connection, ServerError
from evomerge.service.client.downloading import download
from evomerge.service.client.results import RemoteResult
from evomerge.track import plain_wishes

if TYPE_CHECKING:
    from evomerge.search import Event
    from evomerge.track import Track

_ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class StateChanged:
    """A job has another state; cause and message say why an attempt failed."""

    state: str
    cause: str | None
    message: str | None

    @property
    def name(self) -> str:
        """As the server names it."""
        return "state"


class RemoteJob:
    """A job on a server. `facts` is what the server said of it last."""

    def __init__(self, connection: Connection, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self._connection = connection

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.facts["id"])

    @property
    def state(self) -> str:
        """Its state, when the server was last asked."""
        return str(self.facts["state"])

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in _ENDED

    def refresh(self) -> RemoteJob:
        """Ask the server again."""
        self.facts = dict(self._connection.get(f"/jobs/{self.id}"))
        return self

    def watch(self, *, after: int = 0) -> Iterator[Event | StateChanged]:
        """Its events from a number on, each once, until it ends; also over a restart of the server.

        Events of a search are those of `evomerge.search`, without the open record.
        """
        from evomerge.api import read_event

        for body in self._bodies(after):
            if body["event"] == "state":
                self.facts["state"] = body["state"]
                yield StateChanged(
                    state=body["state"], cause=body.get("cause"), message=body.get("message")
                )
                continue
            event = read_event(body)
            if event is not None:
                yield event
        self.refresh()

    def _bodies(self, seq: int) -> Iterator[dict[str, Any]]:
        waits = iter(TRIES_S)
        while True:
            try:
                path = f"/jobs/{self.id}/events?after={seq}"
                headers = {"Last-Event-ID": str(seq)} if seq else {}
                with self._connection.stream(path, headers=headers) as answer:
                    if answer.status_code == 204:
                        return
                    for name, data in _events(answer.iter_lines()):
                        if name == "end":
                            return
                        seq, waits = data["seq"], iter(TRIES_S)
                        yield data
            except (httpx2.TransportError, ServerError) as error:
                wait_s = next(waits, None)
                if wait_s is None:
                    raise ServerError(
                        f"{self._connection.url}: the events of {self.id} stopped ({error}); the "
                        "job goes on, watch it again later"
                    ) from error
                time.sleep(wait_s)
            else:
                time.sleep(TRIES_S[0])  # the server stops; it may come back

    def wait(self) -> RemoteJob:
        """Wait until it has ended."""
        for _ in self.watch(after=self.facts.get("last_event", 0)):
            pass
        return self

    def result(self) -> RemoteResult:
        """The result of a search, after its end. Raises InputError if it has none."""
        if not self.over:
            self.wait()
        if self.state != "succeeded":
            raise InputError(
                f"{self.id}: {self.state}: {self.facts.get('message') or 'it was stopped'}"
            )
        return RemoteResult(self._connection, self.id, self.export)

    def status(self) -> dict[str, Any]:
        """How far the search is, as `evomerge status --json`."""
        return dict(self._connection.get(f"/jobs/{self.id}/status"))

    def log(self) -> str:
        """The end of what its processes printed."""
        return str(self._connection.get(f"/jobs/{self.id}/logs")["text"])

    def cancel(self) -> RemoteJob:
        """End it; what it recorded is kept."""
        return self._move("cancel")

    def pause(self) -> RemoteJob:
        """Stop it and free its place."""
        return self._move("pause")

    def resume(self, *, set: Mapping[str, Any] | None = None, track: Track = None) -> RemoteJob:
        """Go on, with a larger budget or other compute; in its trackers, or in those of `track`."""
        told = {} if track is None else {"track": plain_wishes(track)}
        return self._move("resume", {"set": dict(set or {}), **told})

    def retry(self) -> RemoteJob:
        """Queue a failed or cancelled job again."""
        return self._move("retry")

    def _move(self, act: str, document: Mapping[str, Any] | None = None) -> RemoteJob:
        self.facts = dict(self._connection.post(f"/jobs/{self.id}/{act}", document))
        return self

    def export(
        self,
        out: str | Path,
        *,
        trial: str | None = None,
        point: str | None = None,
        verify: bool = False,
        as_adapter: bool = False,
        rank: int | None = None,
        push: str | None = None,
        public: bool = False,
    ) -> RemoteJob:
        """Export on the server, then download the folder; each file is checked.

        push: ORG/NAME: the server uploads it to the hub too, privately unless `public`. Returns the
        job of the export; `facts["result"]["url"]` is of the repository. Raises InputError,
        StorageError.
        """
        folder = Path(out)
        if folder.exists():
            raise StorageError(f"{folder}: exists already; name another folder")
        pushed = {"push": push, "public": public} if push is not None or public else {}
        export = self.begin_export(
            trial=trial, point=point, verify=verify, as_adapter=as_adapter, rank=rank, **pushed
        ).wait()
        if export.state != "succeeded":
            raise InputError(f"{export.id}: {export.facts.get('message') or export.state}")
        export.download(folder)
        return export

    def begin_export(self, **wanted: Any) -> RemoteJob:
        """Submit an export; see `export`."""
        facts = self._connection.post(
            f"/jobs/{self.id}/exports",
            wanted,
            headers={"Idempotency-Key": secrets.token_urlsafe(16)},
        )
        return RemoteJob(self._connection, facts)

    def download(self, out: str | Path) -> None:
        """Download the files of an export that has succeeded. Raises InputError, StorageError."""
        download(self._connection, self.id, Path(out))


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of the events of a stream."""
    name, data = "", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
        elif not line and data:
            yield name, json.loads(data)
            name, data = "", ""

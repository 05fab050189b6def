"""A job on a server as a Python object: watched, moved, its result and its export taken."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, cast

import httpx2

from evomerge.errors import InputError, StorageError
from evomerge.service.client.connection import TRIES_S, Connection, ServerError
from evomerge.service.client.downloading import download
from evomerge.service.client.submission import (
    CloneOptions,
    key_header,
    plain_changes,
    queue_fields,
)

if TYPE_CHECKING:
    from evomerge.api import Changes
    from evomerge.evaluate import CandidateKey, Split
    from evomerge.export import ExportReport
    from evomerge.search import Event, ShownAnswers
    from evomerge.service.client.results import RemoteResult

R = TypeVar("R")
"""What the job's result is."""

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


class RemoteJob(Generic[R]):
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

    def refresh(self) -> RemoteJob[R]:
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

    def wait(self) -> RemoteJob[R]:
        """Wait until it has ended."""
        for _ in self.watch(after=self.facts.get("last_event", 0)):
            pass
        return self

    def result(self) -> R:
        """Its result, after its end.

        Returns:
            Of a search what `evomerge.search` returns, of a check what `evomerge.check` returns,
            and so on: a `RemoteResult`, `CheckReport`, `GridOutcome`, `ScoreSummary`, a list of
            `Written`, an `ExportReport`. Their paths are names on the server.

        Raises:
            InputError: it failed or was cancelled. ServerError: its result cannot be read.
        """
        if not self.over:
            self.wait()
        if self.state != "succeeded":
            raise InputError(
                f"{self.id}: {self.state}: {self.facts.get('message') or 'it was stopped'}"
            )
        return cast("R", self._read_result())

    def _read_result(self) -> object:
        from evomerge.service.client import results

        found: Mapping[str, Any] = self.facts["result"] or {}
        match self.facts["kind"]:
            case "search":
                return self.record()
            case "check":
                return results.read_check(found)
            case "grid":
                return results.read_grid(found)
            case "evaluation":
                return results.read_evaluation(found)
            case "calibration":
                return results.read_calibration(found)
        return results.read_export(found, Path(self.id))

    def record(self) -> RemoteResult:
        """What a search has recorded so far, as `evomerge.open_run`: also while it runs.

        Raises InputError if it has not begun, or is no search.
        """
        from evomerge.service.client.results import RemoteResult

        return RemoteResult(self._connection, self.id, self.export)

    def status(self) -> dict[str, Any]:
        """How far the search is, as `evomerge status --json`."""
        return dict(self._connection.get(f"/jobs/{self.id}/status"))

    def series(self) -> dict[str, Any]:
        """The values of the report's figure of a search: candidates, generations, baselines."""
        return dict(self._connection.get(f"/jobs/{self.id}/series"))

    def shown_answers(
        self,
        models: str | Iterable[str] = (),
        *,
        lost: bool = False,
        gained: bool = False,
        differ: bool = False,
        task: str | None = None,
        item: int | None = None,
        split: Split | None = None,
        limit: int = 20,
    ) -> ShownAnswers:
        """What models answered, side by side; the first items only.

        The other arguments are those of `SearchResult.answers`. Raises InputError.
        """
        from evomerge.search import read_shown_answers
        from evomerge.service.client.results import answers_of

        document = answers_of(
            self._connection,
            f"/jobs/{self.id}",
            models,
            lost=lost,
            gained=gained,
            differ=differ,
            task=task,
            item=item,
            split=split,
            limit=limit,
        )
        return read_shown_answers(document)

    def log(self) -> str:
        """The end of what its processes printed."""
        return str(self._connection.get(f"/jobs/{self.id}/logs")["text"])

    def cancel(self) -> RemoteJob[R]:
        """End it; what it recorded is kept."""
        return self._move("cancel")

    def pause(self) -> RemoteJob[R]:
        """Stop it and free its place."""
        return self._move("pause")

    def resume(self, *, set: Changes = None) -> RemoteJob[R]:
        """Go on, with a larger budget or other compute."""
        return self._move("resume", {"set": plain_changes(set)})

    def retry(self) -> RemoteJob[R]:
        """Queue a failed or cancelled job again."""
        return self._move("retry")

    def delete(self) -> RemoteJob[R]:
        """Delete it, and cancel it if it runs; `restore` takes that back until it is purged."""
        answer = self._connection.request("DELETE", f"/jobs/{self.id}")
        self.facts = dict(answer.json())
        return self

    def restore(self) -> RemoteJob[R]:
        """Take its deletion back."""
        return self._move("restore")

    def _move(self, act: str, document: Mapping[str, Any] | None = None) -> RemoteJob[R]:
        self.facts = dict(self._connection.post(f"/jobs/{self.id}/{act}", document))
        return self

    def clone(self, *, set: Changes = None, **options: Unpack[CloneOptions]) -> RemoteJob[R]:
        """Submit a copy of it with changes; what is not given is as in this job.

        Args:
            set: changes of what it was asked for, by dotted keys.
            options: as in `Server.submit`. `not_before` and `max_duration_s` may be None: at once,
                and the longest time of the server.

        Raises:
            InputError: the server refuses it, with field, value and mend.
        """
        asked = {"set": plain_changes(set), **queue_fields(options)}
        headers = key_header(options.get("key"))
        facts = self._connection.post(f"/jobs/{self.id}/clone", asked, headers=headers)
        return RemoteJob(self._connection, facts)

    def export(
        self,
        out: str | Path,
        *,
        verify: bool = False,
        trial: str | CandidateKey | None = None,
        point: str | None = None,
        as_adapter: bool = False,
        rank: int | None = None,
        push: str | None = None,
        public: bool = False,
    ) -> ExportReport:
        """Export on the server, then download the folder; each file is checked.

        The arguments are those of `evomerge.export`. Raises InputError, StorageError.
        """
        folder = Path(out)
        if folder.exists():
            raise StorageError(f"{folder}: exists already; name another folder")
        export = self.begin_export(
            verify=verify,
            trial=trial,
            point=point,
            as_adapter=as_adapter,
            rank=rank,
            push=push,
            public=public,
        )
        report = export.result()
        export.download(folder)
        return replace(report, out=folder)

    def begin_export(
        self,
        *,
        verify: bool = False,
        trial: str | CandidateKey | None = None,
        point: str | None = None,
        as_adapter: bool = False,
        rank: int | None = None,
        push: str | None = None,
        public: bool = False,
    ) -> RemoteJob[ExportReport]:
        """Submit an export; see `export`."""
        wanted = {
            "verify": verify,
            "trial": None if trial is None else str(trial),
            "point": point,
            "as_adapter": as_adapter,
            "rank": rank,
            "push": push,
            "public": public or None,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        facts = self._connection.post(f"/jobs/{self.id}/exports", given, headers=key_header(None))
        return RemoteJob(self._connection, facts)

    def download(self, out: str | Path) -> None:
        """Download the files of an export or a calibration. Raises InputError, StorageError."""
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

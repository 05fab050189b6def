"""Webhooks of a server as Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evomerge.service.client.connection import Connection


class RemoteWebhook:
    """A webhook on a server. `facts` is what the server said of it last.

    secret: only of one that was made or rotated just now; it is not shown again.
    """

    def __init__(self, connection: Connection, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self.secret: str | None = self.facts.pop("secret", None)
        self._connection = connection

    def __repr__(self) -> str:
        return f"RemoteWebhook({self.id}, {self.condition})"

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.facts["id"])

    @property
    def condition(self) -> str:
        """ "active", "failing" or "disabled", when the server was last asked."""
        return str(self.facts["condition"])

    @property
    def _path(self) -> str:
        return f"/webhooks/{self.id}"

    def refresh(self) -> RemoteWebhook:
        """Ask the server again."""
        self.facts = dict(self._connection.get(self._path))
        return self

    def change(
        self,
        *,
        name: str | None = None,
        url: str | None = None,
        events: Sequence[str] | None = None,
    ) -> RemoteWebhook:
        """Change what is given. events: empty for everything. Raises InputError."""
        listed = None if events is None else list(events)
        return self._patch(name=name, url=url, events=listed)

    def disable(self) -> RemoteWebhook:
        """Let it be told nothing more; what waits is not sent."""
        return self._patch(enabled=False)

    def enable(self) -> RemoteWebhook:
        """Let it be told again."""
        return self._patch(enabled=True)

    def _patch(self, **changes: Any) -> RemoteWebhook:
        given = {name: value for name, value in changes.items() if value is not None}
        self.facts = dict(self._connection.request("PATCH", self._path, json=given).json())
        return self

    def rotate(self, *, overlap_s: float = 86400.0) -> str:
        """A new secret; the one before signs beside it for `overlap_s` seconds."""
        facts = self._connection.post(f"{self._path}/rotate", {"overlap_s": overlap_s})
        self.secret = str(facts.pop("secret"))
        self.facts = dict(facts)
        return self.secret

    def test(self) -> dict[str, Any]:
        """Let a test be sent; its delivery, which `deliveries` shows again."""
        return dict(self._connection.post(f"{self._path}/test"))

    def deliveries(self, *, state: str | None = None) -> Iterator[dict[str, Any]]:
        """What it was told or is to be told, newest first; state: waiting, delivered, failed."""
        cursor: str | None = None
        while True:
            page = self._connection.get(f"{self._path}/deliveries", state=state, cursor=cursor)
            yield from page["items"]
            cursor = page["cursor"]
            if cursor is None:
                return

    def delete(self) -> None:
        """Delete it with its secret and its deliveries."""
        self._connection.request("DELETE", self._path)

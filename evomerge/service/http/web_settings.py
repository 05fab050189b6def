"""What an operator sets for the HTTP side: names of the server, limits of requests and streams."""

from __future__ import annotations

from dataclasses import dataclass, field

from evomerge.service.webhooks.destinations import Destinations


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """Limits of one server process.

    hosts: names, with or without a port, by which browsers and clients may call it, besides those
    of this machine. trusted_proxies: addresses whose X-Forwarded headers are believed, with
    `behind_proxy`. connections: open ones at once; above that requests are answered 503.
    body_bytes: the largest request. requests_per_s, burst: of one token.
    failed_logins, failed_logins_s: so many wrong tokens of one address in so many seconds; after
    that it is refused. streams, streams_per_token: open streams of live events. session_s: how long
    a browser stays logged in. heartbeat_s: between two comments on a quiet stream; the right to
    watch is checked again as often. poll_s: between two looks for new events of a watched job.
    stop_s: how long a stopping server waits for answers that are under way. uploads,
    uploads_per_token: that come in at once. upload_quiet_s: after so long without a byte an upload
    is given up. webhooks: where webhooks may be sent besides public addresses. public_url: of the
    page as people reach it, for links in what webhooks are told; without a slash at its end.
    """

    hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    connections: int = 3000
    body_bytes: int = 4 * 2**20
    requests_per_s: float = 100.0
    burst: int = 500
    failed_logins: int = 20
    failed_logins_s: float = 60.0
    streams: int = 2000
    streams_per_token: int = 300
    session_s: float = 12 * 3600.0
    heartbeat_s: float = 10.0
    poll_s: float = 0.2
    stop_s: float = 3.0
    uploads: int = 16
    uploads_per_token: int = 4
    upload_quiet_s: float = 60.0
    webhooks: Destinations = field(default_factory=Destinations)
    public_url: str | None = None

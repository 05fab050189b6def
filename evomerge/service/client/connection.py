"""The HTTP connection of a client: its token, its errors in one line, tries after a lost answer.

A request that is only read is tried again when the server is away for a moment. So is a submission,
because its key gives the job that it made before.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from evomerge.errors import EvomergeError, InputError, one_line
from evomerge.version import __version__

TRIES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0)
"""Waits between the tries of a request."""
_AWAY = (502, 503, 504)
_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
API = "/api/v1"


class ServerError(EvomergeError):
    """The server cannot be reached, or cannot do what it was asked for."""


class Connection:
    """Requests to one server with one token."""

    def __init__(
        self, url: str, token: str, *, transport: httpx2.BaseTransport | None = None
    ) -> None:
        """transport: how requests are sent, for tests."""
        self.url = check_url(url)
        self._answered = False
        self._http = httpx2.Client(
            base_url=self.url,
            headers={
                "Authorization": f"Bearer {token}",
                "User-Agent": f"evomerge/{__version__}",
            },
            timeout=_TIMEOUT,
            follow_redirects=False,  # the token is for this server alone
            transport=transport,
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of a GET; parameters that are None are left out."""
        return self.request("GET", path, params=params).json()

    def post(self, path: str, document: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """The JSON of a POST."""
        return self.request("POST", path, json=document, **kwargs).json()

    def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> httpx2.Response:
        """An answer. Raises InputError for what the server refuses, ServerError."""
        again = method == "GET" or "Idempotency-Key" in kwargs.get("headers", {})
        given = {name: value for name, value in (params or {}).items() if value is not None}
        for wait_s in (*TRIES_S, None):
            try:
                answer = self._http.request(method, f"{API}{path}", params=given, **kwargs)
            except httpx2.TransportError as error:
                # A server that never answered is most likely another one.
                if wait_s is None or not again or not self._answered:
                    raise self._away(error) from error
            else:
                self._answered = True
                if answer.status_code not in _AWAY or wait_s is None or not again:
                    self.check(answer)
                    return answer
            time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, read_s: float = 60.0
    ) -> Iterator[httpx2.Response]:
        """An answer that is read while it comes. Raises InputError, ServerError."""
        timeout = httpx2.Timeout(read_s, connect=10.0)
        with self._http.stream(
            "GET", f"{API}{path}", headers=dict(headers or {}), timeout=timeout
        ) as answer:
            if answer.status_code >= 300:
                answer.read()
            self.check(answer)
            yield answer

    def check(self, answer: httpx2.Response) -> None:
        """Raise InputError for what the server refuses, ServerError where it fails."""
        if answer.status_code < 300 or answer.status_code == 304:
            return
        try:
            line = str(answer.json()["detail"])
            mend = answer.json().get("mend")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ServerError(
                f"{self.url}: answers {answer.status_code}, and not as an evomerge service; check "
                "the URL"
            ) from None
        if mend and str(mend) not in line:
            line = f"{line}; {mend}"
        kind = InputError if answer.status_code < 500 else ServerError
        raise kind(one_line(line))

    def _away(self, error: Exception) -> ServerError:
        return ServerError(
            f"{self.url}: cannot be reached ({one_line(error)}); check the URL, and that the "
            "server runs"
        )


def check_url(url: str) -> str:
    """The URL of a server, without a slash at its end. Raises InputError."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"{url[:200]}: {error}; write http(s)://HOST:PORT") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url[:200]}: no URL of a server; write http(s)://HOST:PORT")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"{parts.hostname}: the URL holds more than a server; give the token by EVOMERGE_TOKEN"
        )
    return url.rstrip("/")


_JOB_ADDRESS = re.compile(
    r"(?P<server>https?://[^?#\s]+?)(?:(?:/api/v1)?/jobs|/#/job)/(?P<job>j[a-z2-7]{15})(?:[/?#].*)?"
)


def read_job_url(url: str) -> tuple[str, str]:
    """The server and the id of a job from its address, of the API or of the page.

    Raises InputError.
    """
    found = _JOB_ADDRESS.fullmatch(url)
    if found is None:
        raise InputError(
            f"{url[:200]}: no address of a job; copy it from the page, or write "
            "http(s)://HOST/api/v1/jobs/JOB_ID"
        )
    return check_url(found["server"]), found["job"]


# The token: from the environment, or a file that only its owner can read.


def token_file() -> Path:
    """The file with tokens: a line `URL TOKEN` for each server."""
    given = os.environ.get("EVOMERGE_TOKEN_FILE")
    if given:
        return Path(given)
    config = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    return Path(config) / "evomerge" / "tokens"


def find_token(url: str) -> str:
    """The token for a server. Raises InputError if there is none."""
    token = os.environ.get("EVOMERGE_TOKEN", "").strip()
    if token:
        return token
    path = token_file()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text, mode = "", 0o600
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); check it") from error
    if mode & 0o077:
        raise InputError(f"{path}: others can read it; run `chmod 600 {path}`")
    for line in text.splitlines():
        where, _, token = line.strip().partition(" ")
        if where.rstrip("/") == url.rstrip("/") and token.strip():
            return token.strip()
    raise InputError(
        f"{url}: no token for this server; set EVOMERGE_TOKEN, or run `evomerge --server {url} "
        "login`"
    )


def keep_token(url: str, token: str) -> Path:
    """Keep a token for a server in a file of mode 0600. Raises InputError."""
    path = token_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.partition(" ")[0].rstrip("/") != url.rstrip("/")]
        part = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("".join(f"{line}\n" for line in [*kept, f"{url.rstrip('/')} {token}"]))
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); check it") from error
    return path

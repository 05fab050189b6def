"""Who calls: a token in the header, or a browser's session in a cookie; and what they may do."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, cast

import anyio.to_thread
from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from evomerge.errors import EvomergeError
from evomerge.service.database.engine import Database
from evomerge.service.http import logs, metrics
from evomerge.service.http.guards import UNSAFE, is_secure
from evomerge.service.http.problems import Problem, answer, problem_of
from evomerge.service.http.rates import Buckets, Failures
from evomerge.service.http.web_settings import WebSettings
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import people
from evomerge.service.store.audit import Who
from evomerge.service.store.pages import Scope as Projects
from evomerge.service.store.people import BrowserSession, Role, Token

API = "/api/v1"
LOGIN = f"{API}/session"
READY = "/ready"
CSRF_HEADER = "X-CSRF-Token"

_RANK: dict[Role, int] = {"viewer": 0, "runner": 1, "admin": 2}
_MOST_SECRET = 200
"""Characters of a secret; longer ones are none of ours."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls, by which token, from which address. session: of a browser.

    is_usable: asks the database whether the token or the session can still be used.
    """

    token: Token
    address: str | None
    session: BrowserSession | None = None
    is_usable: Callable[[], bool] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The person."""
        return self.token.person

    @property
    def token_id(self) -> str:
        """The token, without its secret."""
        return self.token.id

    @property
    def who(self) -> Who:
        """For the audit log."""
        return Who(name=self.token.person, token_id=self.token.id, address=self.address)

    @property
    def scope(self) -> Projects:
        """The projects that they may see."""
        return self.token.scope

    def may(self, role: Role) -> bool:
        """Whether the token has this role or a higher one."""
        return _RANK[self.token.role] >= _RANK[role]


def cookie_name(settings: ServiceSettings) -> str:
    """Name of the session's cookie; browsers keep the prefix for cookies of this host over TLS."""
    return "__Host-evomerge" if is_secure(settings) else "evomerge_session"


class Authentication:
    """Lets nobody pass to the API without a token; this comes before a body is read."""

    def __init__(
        self, app: ASGIApp, database: Database, settings: ServiceSettings, web: WebSettings
    ) -> None:
        self._app = app
        self._database = database
        self._cookie = cookie_name(settings)
        self._failures = Failures(web.failed_logins, web.failed_logins_s)
        self._buckets = Buckets(web.requests_per_s, web.burst)
        self._known: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of someone who may call, or refuse it."""
        if scope["type"] != "http" or not _is_guarded(scope):
            if scope["type"] == "http" and scope["path"] == READY:
                # Anyone may ask; who has a token is told more.
                with contextlib.suppress(Problem, EvomergeError):
                    scope.setdefault("state", {})["caller"] = await self._caller(scope)
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["authentication"] = self
        try:
            if not (scope["path"] == LOGIN and scope["method"] == "POST"):
                scope["state"]["caller"] = await self._caller(scope)
        except Problem as problem:
            await answer(problem, logs.request_id_of(scope))(scope, receive, send)
            return
        except EvomergeError as error:  # the database
            logs.log_error("database_error", error, scope)
            await answer(problem_of(error), logs.request_id_of(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        address = address_of(scope)
        given = headers.get("authorization")
        session = None
        if given is not None:
            kind, _, secret = given.partition(" ")
            if kind.lower() != "bearer":
                raise _unknown("Authorization: only bearer tokens are taken here")
            secret = secret.strip()
            token = await self.token_of(secret, address)
        else:
            secret = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
            if not secret:
                raise _unknown("no token")
            session = await self._session_of(secret, address)
            token = session.token
            if scope["method"] in UNSAFE:
                sent = headers.get(CSRF_HEADER, "")
                if not hmac.compare_digest(sent.encode(), session.csrf.encode()):
                    raise Problem(
                        403,
                        f"{CSRF_HEADER}: missing or not of this session",
                        field=CSRF_HEADER,
                        mend="send the csrf value of GET /api/v1/session in this header",
                    )
        self._count(token)
        look = people.token_of if session is None else people.session_of
        return Caller(
            token=token,
            address=address,
            session=session,
            is_usable=lambda: look(self._database, secret) is not None,
        )

    def _count(self, token: Token) -> None:
        """Count a request with a token. Raises Problem (429) beyond its rate."""
        wait_s = self._buckets.wait_s(token.id)
        if wait_s:
            raise Problem(
                429,
                "too many requests with this token",
                mend=f"wait {math.ceil(wait_s)} s",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )

    async def log_in(self, secret: str, address: str | None) -> Token:
        """The token of a new session, counted as a request with it. Raises Problem."""
        token = await self.token_of(secret, address)
        self._count(token)
        return token

    async def token_of(self, secret: str, address: str | None) -> Token:
        """The token of a secret. Raises Problem (401, or 429 after many wrong ones)."""
        mark = self._refuse_guessing(secret, address)
        token = None
        if secret and len(secret) <= _MOST_SECRET:
            token = await anyio.to_thread.run_sync(people.token_of, self._database, secret)
        if token is None:
            raise self._failed(mark, address)
        self._remember(mark)
        return token

    async def _session_of(self, secret: str, address: str | None) -> BrowserSession:
        mark = self._refuse_guessing(secret, address)
        session = None
        if len(secret) <= _MOST_SECRET:
            session = await anyio.to_thread.run_sync(people.session_of, self._database, secret)
        if session is None:
            raise self._failed(mark, address)
        self._remember(mark)
        return session

    def _refuse_guessing(self, secret: str, address: str | None) -> str:
        """Refuse an address that guesses; secrets that were right a while ago still pass."""
        mark = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
        wait_s = self._failures.wait_s(address or "")
        if wait_s and mark not in self._known:
            raise Problem(
                429,
                "too many wrong tokens from this address",
                mend=f"wait {math.ceil(wait_s)} s",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        return mark

    def _failed(self, mark: str, address: str | None) -> Problem:
        self._known.pop(mark, None)
        self._failures.count(address or "")
        metrics.logins_failed.inc()
        return _unknown("the token is not known, was revoked or has expired")

    def _remember(self, mark: str) -> None:
        self._known.pop(mark, None)
        self._known[mark] = None
        if len(self._known) > 1000:
            self._known.popitem(last=False)


def _is_guarded(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == API or path.startswith(f"{API}/") or path == "/metrics"


def _unknown(what: str) -> Problem:
    return Problem(
        401,
        what,
        mend="send `Authorization: Bearer TOKEN`; an admin makes tokens with `evomerge token make`",
        headers={"WWW-Authenticate": 'Bearer realm="evomerge"'},
    )


def address_of(scope: Scope) -> str | None:
    """The address of the client; behind a proxy the server has put the real one here."""
    client = scope.get("client")
    return None if client is None else str(client[0])


# What routes ask for. The checks of secrets were made before; these are for the OpenAPI document.


_bearer = HTTPBearer(auto_error=False, description="A token of `evomerge token make`.")
_session = APIKeyCookie(
    name="evomerge_session",
    auto_error=False,
    description="A browser's session; requests that change something also need X-CSRF-Token.",
)


def _require(role: Role) -> Callable[..., Awaitable[Caller]]:
    async def check(
        request: Request,
        _token: Annotated[object, Depends(_bearer)] = None,
        _cookie: Annotated[object, Depends(_session)] = None,
    ) -> Caller:
        caller = cast(Caller, request.state.caller)
        if not caller.may(role):
            raise Problem(
                403,
                f"the token's role is {caller.token.role}; this needs {role}",
                mend=f"use a token with the role {role}",
            )
        return caller

    return check


Viewer = Annotated[Caller, Depends(_require("viewer"))]
Runner = Annotated[Caller, Depends(_require("runner"))]
Admin = Annotated[Caller, Depends(_require("admin"))]

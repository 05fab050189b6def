"""Browser sessions: log in with a token, see who is logged in, log out."""

from __future__ import annotations

from typing import cast

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from evomerge.service.http.callers import (
    API,
    Authentication,
    Viewer,
    address_of,
    cookie_name,
)
from evomerge.service.http.guards import is_secure
from evomerge.service.http.here import Here, Service
from evomerge.service.http.models import Login
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.views import SessionView, moment
from evomerge.service.store import people
from evomerge.service.store.audit import Who
from evomerge.service.store.people import BrowserSession, Token

router = APIRouter(prefix=f"{API}/session", tags=["session"])


@router.post(
    "",
    status_code=201,
    summary="Log in",
    responses=responses(400, 401, 403, 413, 421, 422, 429, 503),
)
async def log_in(login: Login, request: Request, response: Response, here: Here) -> SessionView:
    """Exchange a token for a session of this browser.

    The session is in a cookie that scripts cannot read. Requests with it that change something need
    the header `X-CSRF-Token` with the `csrf` of this answer.
    """
    gate = cast(Authentication, request.state.authentication)
    address = address_of(request.scope)
    token = await gate.log_in(login.token, address)
    session, secret = await anyio.to_thread.run_sync(
        lambda: people.make_session(
            here.database,
            token,
            lasts_s=here.web.session_s,
            who=Who(name=token.person, token_id=token.id, address=address),
        )
    )
    response.set_cookie(
        cookie_name(here.settings),
        secret,
        max_age=int(here.web.session_s),
        path="/",
        secure=is_secure(here.settings),
        httponly=True,
        samesite="strict",
    )
    return await anyio.to_thread.run_sync(_view, token, session, here)


@router.get("", summary="Who is logged in", responses=responses(401, 421, 429, 503))
def who_am_i(caller: Viewer, here: Here) -> SessionView:
    """The person, role and projects of the token or of the session."""
    return _view(caller.token, caller.session, here)


@router.delete(
    "", status_code=204, summary="Log out", responses=responses(401, 403, 409, 421, 429, 503)
)
def log_out(caller: Viewer, request: Request, response: Response, here: Here) -> None:
    """End the session of this browser."""
    name = cookie_name(here.settings)
    secret = request.cookies.get(name)
    if caller.session is None or secret is None:
        raise Problem(
            409,
            "there is no session: a token was sent",
            mend="an admin revokes a token with DELETE /api/v1/tokens/ID",
        )
    people.end_session(here.database, secret, who=caller.who)
    response.delete_cookie(
        name, path="/", secure=is_secure(here.settings), httponly=True, samesite="strict"
    )


def _view(token: Token, session: BrowserSession | None, here: Service) -> SessionView:
    names = here.project_names()
    listed = token.projects
    return SessionView(
        person=token.person,
        role=token.role,
        token=token.id,
        projects=None if listed is None else [names.get(each, each) for each in listed],
        csrf=None if session is None else session.csrf,
        expires=moment(token.expires if session is None else session.expires),
    )

"""Projects, tokens and the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from evomerge.service.http.callers import API, Admin, Caller, Viewer
from evomerge.service.http.here import Here
from evomerge.service.http.models import NewProject, NewToken
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.views import (
    AuditPage,
    AuditView,
    MadeToken,
    ProjectView,
    TokenView,
    made_token,
)
from evomerge.service.http.webhook_models import RevokedToken, revoked_token
from evomerge.service.store import audit, people
from evomerge.service.store.people import Token
from evomerge.service.store.refusals import NotFound
from evomerge.service.webhooks import subscriptions

router = APIRouter(prefix=API)

READING = (401, 403, 421, 422, 429, 503)
CHANGING = (400, 401, 403, 404, 409, 413, 421, 422, 429, 503)


@router.get(
    "/projects", tags=["people"], summary="Projects", responses=responses(401, 421, 429, 503)
)
def list_projects(caller: Viewer, here: Here) -> list[ProjectView]:
    """The projects that the token may see, by name."""
    return [ProjectView.of(each) for each in people.projects(here.database, scope=caller.scope)]


@router.post(
    "/projects",
    tags=["people"],
    status_code=201,
    summary="Make a project",
    responses=responses(*CHANGING),
)
def make_project(new: NewProject, caller: Admin, here: Here) -> ProjectView:
    """Make a project. It needs an admin's token for all projects."""
    if caller.scope is not None:
        raise Problem(
            403,
            "the token is for some projects only, so it cannot make another",
            mend="use an admin's token for all projects",
        )
    return ProjectView.of(people.make_project(here.database, new.name, who=caller.who))


@router.get("/tokens", tags=["people"], summary="Tokens", responses=responses(*READING))
def list_tokens(
    caller: Admin,
    here: Here,
    person: Annotated[str | None, Query(max_length=100, description="Only of this person.")] = None,
) -> list[TokenView]:
    """Tokens without their secrets, newest first; revoked and expired ones too."""
    names = here.project_names()
    listed = people.tokens(here.database, person=person)
    return [TokenView.of(each, names) for each in listed if _is_within(each, caller)]


@router.post(
    "/tokens",
    tags=["people"],
    status_code=201,
    summary="Make a token",
    responses=responses(*CHANGING),
)
def make_token(new: NewToken, caller: Admin, here: Here) -> MadeToken:
    """Make a token. Its secret is in this answer and is not kept.

    An admin whose token is for some projects can make tokens for those only.
    """
    if new.projects is None:
        if caller.scope is not None:
            raise Problem(
                403,
                "projects: null: the token is for some projects only, so it cannot give all",
                field="projects",
                mend="name projects of your own",
            )
        projects = None
    else:
        projects = [
            people.project_named(here.database, each, scope=caller.scope).id
            for each in new.projects
        ]
    token, secret = people.make_token(
        here.database,
        name=new.name,
        person=new.person,
        role=new.role,
        projects=projects,
        expires=None if new.expires is None else new.expires.timestamp(),
        who=caller.who,
    )
    return made_token(token, secret, here.project_names())


@router.delete(
    "/tokens/{token_id}",
    tags=["people"],
    summary="Revoke a token",
    responses=responses(401, 403, 404, 421, 422, 429, 503),
)
def revoke_token(
    token_id: Annotated[str, Path(max_length=64)], caller: Admin, here: Here
) -> RevokedToken:
    """Revoke a token and end its browser sessions, at once and for good.

    Webhooks belong to their project and go on; those that its person made are in the answer.
    """
    found = {each.id: each for each in people.tokens(here.database)}.get(token_id)
    if found is None or not _is_within(found, caller):
        raise NotFound(
            "there is no such token", field="token_id", value=token_id, mend="check its id"
        )
    token = people.revoke(here.database, token_id, who=caller.who)
    left = subscriptions.find_webhooks(here.database, owner=token.person, scope=caller.scope)
    return revoked_token(token, left, here.project_names())


@router.get("/audit", tags=["people"], summary="The audit log", responses=responses(*READING))
def read_audit(
    caller: Admin,
    here: Here,
    who: Annotated[str | None, Query(max_length=100)] = None,
    act: Annotated[str | None, Query(max_length=100, examples=["job.submit"])] = None,
    what: Annotated[str | None, Query(max_length=100, description="Id of a thing.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> AuditPage:
    """Who did what, when and from where, newest first."""
    page = audit.find(
        here.database,
        scope=caller.scope,
        who=who,
        act=act,
        what=what,
        limit=limit,
        cursor=cursor,
    )
    names = here.project_names()
    items = [AuditView.of(each, names) for each in page.items]
    return AuditPage(items=items, cursor=page.cursor, total=page.total)


def _is_within(token: Token, caller: Caller) -> bool:
    """Whether a token is for projects of the caller only."""
    if caller.scope is None:
        return True
    return token.scope is not None and token.scope <= caller.scope

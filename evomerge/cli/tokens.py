"""The commands `evomerge token ...`, for who can read the data folder or the database."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.endings import answering, say, say_error, say_json
from evomerge.cli.serving import DATA, AsJson, DatabaseUrl, DataOption

if TYPE_CHECKING:
    from evomerge.service import Database

group = typer.Typer(
    help="Tokens of the service: list them, make one, revoke one.", no_args_is_help=True
)


class RoleName(enum.StrEnum):
    """What a token may do."""

    viewer = "viewer"
    runner = "runner"
    admin = "admin"


@group.command("list")
def list_tokens(
    data: DataOption = DATA, database: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """Show all tokens, without their secrets."""
    with answering(), _opened(data, database) as db:
        from evomerge.service import projects, tokens

        names = {project.id: project.name for project in projects(db)}
        listed = tokens(db)
        if as_json:
            say_json(
                [
                    {
                        **vars(token),
                        **{key: _iso(getattr(token, key)) for key in _TIMES},
                        "projects": token.projects
                        and [names.get(each, each) for each in token.projects],
                    }
                    for token in listed
                ]
            )
            return
        for token in listed:
            seen = "all projects"
            if token.projects is not None:
                seen = ", ".join(names.get(each, each) for each in token.projects)
            ends = "revoked" if token.revoked else _until(token.expires)
            say(f"{token.id}  {token.person}  {token.role}  {seen}  {ends}  {token.name}")


@group.command("make")
def make_token(
    person: Annotated[str, typer.Argument(help="Whose it is.", show_default=False)],
    name: Annotated[str, typer.Option(help="What it is for.")] = "command line",
    role: Annotated[RoleName, typer.Option(help="What it may do.")] = RoleName.runner,
    project: Annotated[
        list[str] | None,
        typer.Option(help="A project that it may see; all if not given. A new one is made."),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0.001, help="It expires after so many days.")
    ] = None,
    data: DataOption = DATA,
    database: DatabaseUrl = None,
) -> None:
    """Make a token and print its secret, which is not kept."""
    with answering(), _opened(data, database) as db:
        from evomerge.service import OPERATOR, make_project, projects
        from evomerge.service import make_token as make

        known = {each.name: each.id for each in projects(db)}
        for wanted in project or ():
            if wanted not in known:
                known[wanted] = make_project(db, wanted, who=OPERATOR).id
                say_error(f"project {wanted} is new")
        token, secret = make(
            db,
            name=name,
            person=person,
            role=role.value,
            projects=None if project is None else [known[wanted] for wanted in project],
            expires=None if days is None else time.time() + days * 86400.0,
            who=OPERATOR,
        )
        say_error(f"token {token.id} of {person}, {role.value}, {_until(token.expires)}:")
        say(secret)


@group.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="Its id, as list shows it.", show_default=False)],
    webhooks: Annotated[
        bool,
        typer.Option("--webhooks", help="Delete the webhooks that its person made, too."),
    ] = False,
    data: DataOption = DATA,
    database: DatabaseUrl = None,
) -> None:
    """Revoke a token and end its browser sessions; say which webhooks its person leaves behind."""
    with answering(), _opened(data, database) as db:
        from evomerge.service import OPERATOR, find_webhooks, projects, remove_webhooks, revoke

        token = revoke(db, token_id, who=OPERATOR)
        say(f"revoked {token.id} of {token.person}")
        names = {project.id: project.name for project in projects(db)}
        if webhooks:
            for each in remove_webhooks(db, owner=token.person, who=OPERATOR):
                say(f"deleted webhook {each.id} of {names[each.project]}  {each.name}")
            return
        left = find_webhooks(db, owner=token.person)
        for each in left:
            say(f"webhook {each.id} of {names[each.project]} goes on  {each.name}")
        if left:
            say_error(f"`evomerge token revoke {token.id} --webhooks` deletes them")


@contextlib.contextmanager
def _opened(data: Path, database: str | None) -> Iterator[Database]:
    """The database of a service that has been started before."""
    from evomerge.service import ServiceSettings, open_existing

    with open_existing(ServiceSettings(data=data.absolute(), database=database)) as opened:
        yield opened


_TIMES = ("made", "expires", "revoked", "last_used")


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _until(expires: float | None) -> str:
    if expires is None:
        return "no end"
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires))
    return f"expired {moment}" if expires <= time.time() else f"until {moment}"

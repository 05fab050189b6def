"""The commands `evomerge serve` and `evomerge token ...`, for who runs the service on a machine."""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.endings import answering, drop_output, leave_quickly, say, say_error, say_json
from evomerge.errors import InputError, StorageError
from evomerge.startup import end_loading, share_heap

if TYPE_CHECKING:
    from evomerge.service import Database

DataDir = Annotated[Path, typer.Argument(help="Folder of the service.")]
DataOption = Annotated[
    Path, typer.Option("--data", metavar="DATA_DIR", help="Folder of the service.")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="EVOMERGE_DATABASE",
        show_envvar=True,
        metavar="URL",
        help="postgresql+psycopg://USER@HOST/NAME, with its password in ~/.pgpass; by default a "
        "file in DATA_DIR.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_DATA = Path("evomerge-data")
_HUB = "hub:"


def serve(
    data: DataDir = _DATA,
    database: DatabaseUrl = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8321,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy in front of it speaks TLS.")
    ] = False,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of that proxy; 127.0.0.1 and ::1 if not given."),
    ] = None,
    public_host: Annotated[
        list[str] | None, typer.Option(help="A name by which browsers call it.")
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of the page, for links in what webhooks are told."),
    ] = None,
    allow_webhooks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST|CIDR",
            help="A host or a network that webhooks may reach though it is not public.",
        ),
    ] = None,
    allow_http_webhooks: Annotated[
        bool, typer.Option("--allow-http-webhooks", help="Webhooks without TLS.")
    ] = False,
    slots: Annotated[
        int, typer.Option(min=0, max=1024, help="Jobs that run here at once; 0 runs none.")
    ] = 1,
    allow_source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR|hub:ORG", help="Where models may come from: a folder, or an organisation."
        ),
    ] = None,
    allow_task: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of task files.")
    ] = None,
    trust_task_code: Annotated[
        bool,
        typer.Option(
            "--trust-task-code",
            help="Task files in DATA_DIR/uploads may be code.",
        ),
    ] = False,
    trust_model_code: Annotated[
        bool, typer.Option("--trust-model-code", help="A model's own code may run.")
    ] = False,
    allow_tracker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="A tracker that searches may be shown in; options that are given are fixed.",
        ),
    ] = None,
    allow_push: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORG",
            help="An organisation of the hub, or a user, to which exports may be pushed.",
        ),
    ] = None,
    allow_public_push: Annotated[
        bool, typer.Option("--allow-public-push", help="A push may be for everyone to read.")
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run jobs on this Ray cluster.")
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(min=1, help="Jobs of a person that run at once.")
    ] = None,
    max_queued: Annotated[
        int | None, typer.Option(min=1, help="Jobs of a person that wait.")
    ] = None,
    max_gpus: Annotated[
        float | None,
        typer.Option(min=0.0, help="GPUs of a person's running jobs, as the jobs say."),
    ] = None,
    max_hours: Annotated[
        float | None, typer.Option(min=0.0, help="Hours of a job's budget.")
    ] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="Items of a job's budget.")] = None,
    max_duration: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Seconds that a job may run, over all attempts; a person's retry counts anew.",
        ),
    ] = None,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Open connections; above it requests are answered 503.")
    ] = 3000,
    max_upload: Annotated[
        int, typer.Option(min=1, max=256, metavar="MIB", help="MiB of an uploaded table.")
    ] = 256,
    max_project_uploads: Annotated[
        int, typer.Option(min=1, metavar="MIB", help="MiB of all uploads of a project.")
    ] = 4096,
) -> None:
    """Serve jobs to a team: an API and a page, a queue, and the processes that run the jobs.

    The first start makes a token for an admin and prints it once. SIGTERM and Ctrl-C stop the
    server; jobs that run go on, and the next start finds them.
    """
    with answering():
        from evomerge.service import (
            Destinations,
            Limits,
            ServiceSettings,
            WebSettings,
            check_url,
            open_server,
        )
        from evomerge.track import allow_trackers

        folders, organisations = _sources(allow_source or [])
        settings = ServiceSettings(
            data=data.absolute(),
            database=database,
            host=host,
            port=port,
            tls_certificate=tls_cert,
            tls_key=tls_key,
            behind_proxy=behind_proxy,
            slots=slots,
            limits=Limits(
                jobs_running=max_running,
                jobs_queued=max_queued,
                gpus=max_gpus,
                hours=max_hours,
                items=max_items,
                duration_s=max_duration,
                upload_bytes=max_upload * 2**20,
                project_uploads_bytes=max_project_uploads * 2**20,
            ),
            source_folders=folders,
            hub_organisations=organisations,
            task_folders=tuple(_folder("--allow-task", path) for path in allow_task or ()),
            trust_task_code=trust_task_code,
            trust_model_code=trust_model_code,
            trackers=allow_trackers(allow_tracker or []),
            push_organisations=tuple(map(_organisation, allow_push or ())),
            public_push=allow_public_push,
            ray_address=ray_address,
        )
        web = WebSettings(
            hosts=tuple(public_host or ()),
            connections=max_connections,
            webhooks=Destinations.read(allow_webhooks or [], http=allow_http_webhooks),
            public_url=None if public_url is None else check_url(public_url),
        )
        if trusted_proxy:
            if not behind_proxy:
                raise InputError("--trusted-proxy: it needs --behind-proxy too; give both")
            web = replace(web, trusted_proxies=tuple(map(_proxy, trusted_proxy)))
        share_heap()
        opened = open_server(settings, web)
        server = opened.__enter__()
    # Signals are the server's own from here: the first stops it, and it ends by itself.
    try:
        if server.first_token is not None:
            with answering():
                _show_first(server.first_token, data)

        def listening() -> None:
            end_loading()
            try:
                say(f"listening on {server.url}")
            except OSError:  # its log says it too
                drop_output()

        server.run(listening=listening)
    finally:
        opened.__exit__(None, None, None)
    leave_quickly()


def _show_first(secret: str, data: Path) -> None:
    """Print the token of the first admin. Raises StorageError."""
    try:
        say("The token of the first admin; it is shown only now:")
        say(secret)
    except OSError as error:
        raise StorageError(
            f"the token of the first admin could not be printed ({error.strerror}), and is lost; "
            f"make another: evomerge token make NAME --role admin --data {shlex.quote(str(data))}"
        ) from error


def _sources(allowed: list[str]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    folders = [_folder("--allow-source", Path(each)) for each in allowed if _HUB not in each[:4]]
    organisations = [each.removeprefix(_HUB) for each in allowed if each.startswith(_HUB)]
    if not all(organisations):
        raise InputError("--allow-source hub:: the organisation is missing; write hub:ORG")
    return tuple(folders), tuple(organisations)


def _proxy(given: str) -> str:
    try:
        ipaddress.ip_network(given, strict=False)
    except ValueError as error:
        raise InputError(
            f"--trusted-proxy {given}: no address; give that from which the proxy calls, such as "
            "10.88.0.1, or a network, such as 10.88.0.0/16"
        ) from error
    return given


def _organisation(name: str) -> str:
    """An organisation that may be pushed to. Raises InputError."""
    from evomerge.export import has_token, is_repo

    if not is_repo(f"{name}/model"):
        raise InputError(
            f"--allow-push {name}: not an organisation of the hub; write its name alone"
        )
    if not has_token():
        raise InputError(
            f"--allow-push {name}: there is no token of the hub; set HF_TOKEN, or run `hf auth "
            "login`"
        )
    return name


def _folder(option: str, path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"{option} {path}: no such folder; check the path")
    return path.resolve()


# Tokens, by who can read the data folder or the database.


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
    data: DataOption = _DATA, database: DatabaseUrl = None, as_json: AsJson = False
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
    data: DataOption = _DATA,
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
    data: DataOption = _DATA,
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

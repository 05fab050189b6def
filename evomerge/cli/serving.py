"""The command `evomerge serve`, for who runs the service on a machine."""

from __future__ import annotations

import ipaddress
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.endings import answering, drop_output, leave_quickly, say
from evomerge.errors import InputError, StorageError
from evomerge.startup import end_loading, share_heap

if TYPE_CHECKING:
    pass

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
DATA = Path("evomerge-data")
_HUB = "hub:"


def serve(
    data: DataDir = DATA,
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

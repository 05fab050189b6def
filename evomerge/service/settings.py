"""What an operator sets: where the service keeps things, and what its users may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATABASE_FILE = "evomerge.db"
LARGEST_UPLOAD_BYTES = 256 * 2**20
"""No larger table is read."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one person may take; None: no limit.

    jobs_running, jobs_queued: of a person at once. gpus: of a person's running jobs together, as
    the jobs declare them; a search must then give its number of workers. hours, items: of one job's
    budget; a job must then name a budget in that unit. duration_s: of all attempts of a job since a
    person queued it; one without its own `max_duration_s` gets this. retries: the most that a job
    may ask for.
    upload_bytes: of one uploaded table. project_uploads_bytes: of all that a project keeps.
    """

    jobs_running: int | None = None
    jobs_queued: int | None = None
    gpus: float | None = None
    hours: float | None = None
    items: int | None = None
    duration_s: float | None = None
    retries: int = 10
    upload_bytes: int = LARGEST_UPLOAD_BYTES
    project_uploads_bytes: int = 4 * 2**30


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """The settings of one server; several servers of one database should have equal ones.

    data: the folder of runs, exports, logs, uploads and the embedded database. database: URL of
    another database; its password is never shown. slots: how many jobs this server runs at once; 0
    runs none. tls_certificate, tls_key: files of PEM. behind_proxy: whether a proxy ends TLS.

    source_folders, hub_organisations: where models may come from; `*` is any organisation.
    task_folders: folders of task files that jobs may name; they are code, as lm-eval's templates
    and functions are. trust_task_code: whether task files in `uploads` may be code.
    trust_model_code: whether a job may set `models.trust_remote_code`.

    trackers: in which searches may be shown, each with the options that are fixed; the owner of a
    job chooses among them, and only names in them. push_organisations: of the hub, in which exports
    may be made repositories. public_push: whether everyone may then read them.

    least_disk_bytes, least_memory_bytes: free space of the data folder, and memory available, below
    which no job begins; a running one stops at a quarter. lease_s: how long a runner may go
    without a heartbeat before another host takes its job as lost. poll_s: between two looks at the
    queue. backoff_s: before the first retry. purge_after_s: after that a deleted job is gone.
    """

    data: Path
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = 8321
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    slots: int = 1
    limits: Limits = Limits()
    source_folders: tuple[Path, ...] = ()
    hub_organisations: tuple[str, ...] = ()
    task_folders: tuple[Path, ...] = ()
    trust_task_code: bool = False
    trust_model_code: bool = False
    trackers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    push_organisations: tuple[str, ...] = ()
    public_push: bool = False
    ray_address: str | None = None
    least_disk_bytes: int = 2**30
    least_memory_bytes: int = 2**29
    lease_s: float = 60.0
    poll_s: float = 0.5
    backoff_s: float = 15.0
    purge_after_s: float = 7 * 86400.0

    @property
    def database_url(self) -> str:
        """The URL of the database: the operator's, or the file in the data folder."""
        return self.database or f"sqlite:///{self.data.absolute() / DATABASE_FILE}"

    def run_dir(self, job_id: str) -> Path:
        """The run folder of a job."""
        return self.data / "runs" / job_id

    def export_dir(self, job_id: str) -> Path:
        """The folder that an export writes."""
        return self.data / "exports" / job_id

    def log_file(self, job_id: str) -> Path:
        """What the runner of a job printed."""
        return self.data / "logs" / f"{job_id}.log"

    def uploads(self, project: str) -> Path:
        """The folder of files that the operator put there for a project; its jobs may read them."""
        return self.data / "uploads" / project

    def made_tasks(self, project: str) -> Path:
        """The folder of tasks that the service made of uploaded questions; they hold no code."""
        return self.data / "tasks" / project

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a process that runs a job; the database's URL may hold a password."""
        return {
            **{key: _plain(value) for key, value in vars(self).items()},
            "limits": {key: _plain(value) for key, value in vars(self.limits).items()},
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ServiceSettings:
        """The settings that `to_json` gave."""
        folders = ("source_folders", "task_folders")
        paths = ("data", "tls_certificate", "tls_key")
        read: dict[str, Any] = dict(document)
        read.update({key: tuple(map(Path, document[key])) for key in folders})
        read.update({key: document[key] and Path(document[key]) for key in paths})
        for key in ("hub_organisations", "push_organisations"):
            read[key] = tuple(document[key])
        read["limits"] = Limits(**document["limits"])
        return cls(**read)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())  # the other process has another working folder
    return [_plain(each) for each in value] if isinstance(value, tuple) else value

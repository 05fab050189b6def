"""Verification of an exported folder by a node of a cluster, which reads it by its path.

What the node reads must be what was written here, so its files are compared: the folder by its
manifest, the model under an adapter and the task files by their hashes.
"""

from __future__ import annotations

import hashlib
import tempfile
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import RunError, WorkerError
from evomerge.evaluate import Say, StockOptions, TaskItems, hash_tasks, hush
from evomerge.export.manifest import MANIFEST
from evomerge.export.verification import Verification, check_peft, verify
from evomerge.sources import Source, open_source
from evomerge.workers import PreparedJob, open_process, share_there

_SHARE_IT = "give a folder that all machines share, or verify without --ray-address"


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a node is asked to verify. task_files, base_files: name -> sha256 here."""

    folder: Path
    manifest_sha256: str
    tasks: tuple[str, ...]
    task_files: Mapping[str, str]
    base: Path | None
    base_files: Mapping[str, str]
    recorded: Mapping[str, TaskItems]
    options: StockOptions


class _Verifier:
    """The part that runs on the node."""

    def sees(self, path: str) -> bool:
        return Path(path).exists()

    def verify(self, tell: Say, asked: _Asked) -> Verification:
        """See `verify`. Raises RunError for files that differ from those where the command runs."""
        if _sha256(asked.folder / MANIFEST) != asked.manifest_sha256:
            raise RunError(
                f"{asked.folder}: it is not the folder that the command has written; {_SHARE_IT}"
            )
        found_files = hash_tasks(asked.tasks, asked.options.task_folders)
        for name in sorted({*asked.task_files, *found_files}):
            if asked.task_files.get(name) != found_files.get(name):
                raise RunError(f"{name}: not the task file that the command has read; {_SHARE_IT}")
        if asked.base is not None:
            check_peft()
            found = open_source(str(asked.base), where="the adapter's base").sha256()
            if dict(found) != dict(asked.base_files):
                raise RunError(f"{asked.base}: not the model that the adapter is over; {_SHARE_IT}")
        return verify(asked.folder, asked.recorded, asked.options, base=asked.base, say=tell)


class NodeVerifier:
    """A node that verifies exports of a job to one folder; use it in a `with`.

    device: of the node. Raises RunError, before anything is written, if the node does not see the
    place of `out`; JobError, WorkerError if the cluster does not answer or has no room.
    """

    def __init__(
        self, preparation: PreparedJob, out: Path, *, ray_address: str, say: Say = hush
    ) -> None:
        compute = preparation.job.compute
        share = share_there(compute.device, compute.gpus_per_worker, ray_address=ray_address)
        self.device = share.device
        self._tasks = preparation.job.all_tasks
        self._folders = tuple(Path(each) for each in preparation.job.evaluation.task_folders)
        self._say = say
        self._process = open_process(_Verifier, share, ray_address=ray_address, say=say)
        try:
            if not self._sees(out):
                raise RunError(
                    f"--out: {out}: the node {self._process.node} does not see this place, so it "
                    f"cannot verify there; {_SHARE_IT}"
                )
        except BaseException:
            self._process.close()
            raise

    def verify(
        self,
        folder: Path,
        recorded: Mapping[str, TaskItems],
        options: StockOptions,
        *,
        base: Source | None = None,
    ) -> Verification:
        """As `verify`, on the node. base: the model that `folder` holds an adapter over.

        Raises WorkerError if the node is lost; the folder stays.
        """
        asked = _Asked(
            folder=folder.absolute(),
            manifest_sha256=_sha256(folder / MANIFEST),
            tasks=self._tasks,
            task_files=hash_tasks(self._tasks, self._folders),
            base=None if base is None else base.folder.absolute(),
            base_files={} if base is None else dict(base.sha256()),
            recorded=recorded,
            options=options,
        )
        try:
            found: Verification = self._process.call("verify", asked, tell=self._say)
        except WorkerError as error:
            raise WorkerError(f"{error}; {folder} is written, and not verified") from error
        return found

    def _sees(self, out: Path) -> bool:
        """Whether the node sees a new file beside the folder that is to be made."""
        beside = next(parent for parent in out.absolute().parents if parent.is_dir())
        try:
            with tempfile.NamedTemporaryFile(prefix=".evomerge-", dir=beside) as probe:
                return bool(self._process.ask("sees", probe.name))
        except OSError:
            return True  # the export itself says that it cannot write there

    def __enter__(self) -> NodeVerifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._process.close()


def _sha256(path: Path) -> str:
    """The hash of a manifest; empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""

"""A run directory: whether it holds a search or a grid, and whether this user started it.

A job may name task folders and models that have their own code. A user who writes a job wants that
code to run; a user who gets a run directory from someone else may not. So the start of a search
writes a mark into its directory. Only a secret key of this user can make that mark.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shlex
from pathlib import Path

from evomerge.errors import RunError
from evomerge.job import JobSpec, shipped_folder

_MARK = "run.mark"
_KEY_BYTES = 32


def mark_own(run_dir: Path, job: JobSpec) -> None:
    """Mark a search as started by this user; not if the user's key cannot be kept."""
    key = _key(make=True)
    if key is not None:
        (run_dir / _MARK).write_text(_mark(key, job) + "\n", encoding="utf-8")


def check_own(run_dir: Path, job: JobSpec, *, trust: bool) -> None:
    """Refuse to run code that a directory's job names, unless this user started the search.

    job: as in the directory. trust: whether the user has allowed the code.
    """
    named = _code_of(job)
    if not named or trust:
        return
    key = _key(make=False)
    try:
        marked = (run_dir / _MARK).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        marked = ""
    if key is None or not hmac.compare_digest(marked.encode(), _mark(key, job).encode()):
        raise RunError(
            f"{run_dir}: its job runs code of {' and '.join(named)}, and you did not start this "
            "search with this job; look at that code, then add --trust-code"
        )


def _code_of(job: JobSpec) -> list[str]:
    shipped = shipped_folder("evals").resolve()
    folders = [Path(folder) for folder in job.evaluation.task_folders]
    named = [
        f"evaluation.task_folders ({folder})"
        for folder in folders
        if not folder.resolve().is_relative_to(shipped)
    ]
    if job.models.trust_remote_code:
        named.append("its models (models.trust_remote_code)")
    return named


def _mark(key: bytes, job: JobSpec) -> str:
    models = job.models
    marked = {
        "task_folders": job.evaluation.task_folders,
        "trust_remote_code": models.trust_remote_code,
        "models": [models.base, *models.sources, models.tokenizer],
    }
    return hmac.new(key, json.dumps(marked, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _key(*, make: bool) -> bytes | None:
    """This user's key, made if there is none; None if it cannot be written or read."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    file = state / "evomerge" / "key"
    try:
        if make and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = file.with_name(f".key.{secrets.token_hex(8)}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as to:
                to.write(secrets.token_bytes(_KEY_BYTES))
            try:
                # A link is complete, and only the first of two processes can make it.
                os.link(part, file)
            finally:
                part.unlink()
        key = file.read_bytes()
    except (OSError, RuntimeError):
        return None
    return key if len(key) == _KEY_BYTES else None


GRID_FILE = "grid.yaml"


def refuse_search(run_dir: Path) -> None:
    """Raise RunError if the directory holds a search and no grid."""
    if (run_dir / "job.yaml").exists() and not holds_grid(run_dir):
        raise RunError(f"{run_dir}: holds a search; give the grid another --run-dir")


def refuse_grid(run_dir: Path) -> None:
    """Raise RunError if the directory holds a grid, which is not a search."""
    if holds_grid(run_dir):
        file, folder = (shlex.quote(str(each)) for each in (run_dir / GRID_FILE, run_dir))
        raise RunError(
            f"{run_dir}: holds a grid, not a search; to resume it or to see its outcome and "
            f"recipes, run `evomerge grid {file} --run-dir {folder}`"
        )


def holds_grid(run_dir: Path) -> bool:
    """Whether a grid was started in the directory."""
    return (run_dir / GRID_FILE).exists()

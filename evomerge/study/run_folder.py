"""A run directory: what it holds, and whether this user began it.

A job may name folders of tasks and models with code of their own. Whoever writes a job of theirs
means that code to run; whoever was given a run directory may not. So the beginning of a search
leaves a mark in its directory that only a key of this user's makes, which no one else has.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from evomerge.errors import RunError
from evomerge.job import JobSpec, shipped_folder

_MARK = "run.mark"
_KEY_BYTES = 32


def mark_own(run_dir: Path, job: JobSpec) -> None:
    """Mark what this user begins; without a place for a key it is no one's."""
    key = _key(make=True)
    if key is not None:
        (run_dir / _MARK).write_text(_mark(key, job) + "\n", encoding="utf-8")


def check_own(run_dir: Path, job: JobSpec, *, trust: bool) -> None:
    """Refuse to run code that a directory's job names and that this user never asked for.

    job: as the directory holds it. trust: whether the user has said that it may run.
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
            f"{run_dir}: its job runs code of {' and '.join(named)}, and the search was not begun "
            "by you as it stands there; look at that code, then add --trust-code"
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
    said = {
        "task_folders": job.evaluation.task_folders,
        "trust_remote_code": models.trust_remote_code,
        "models": [models.base, *models.sources, models.tokenizer],
    }
    return hmac.new(key, json.dumps(said, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _key(*, make: bool) -> bytes | None:
    """This user's key, made where there is none; None where it cannot be kept or read."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    file = state / "evomerge" / "key"
    try:
        if make and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = file.with_name(f".key.{secrets.token_hex(8)}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as to:
                to.write(secrets.token_bytes(_KEY_BYTES))
            try:
                # Whole, and the first of two that begin together.
                os.link(part, file)
            finally:
                part.unlink()
        key = file.read_bytes()
    except (OSError, RuntimeError):
        return None
    return key if len(key) == _KEY_BYTES else None


GRID_FILE = "grid.yaml"


def refuse_search(run_dir: Path) -> None:
    """Raise RunError where the directory holds a search and no grid."""
    if (run_dir / "job.yaml").exists() and not holds_grid(run_dir):
        raise RunError(f"{run_dir}: holds a search; give the grid another --run-dir")


def refuse_grid(run_dir: Path) -> None:
    """Raise RunError where the directory holds a grid, which is no search."""
    if holds_grid(run_dir):
        raise RunError(
            f"{run_dir}: holds a grid, no search; go on with it, or see its outcome and recipes, "
            f"by `evomerge grid {run_dir / GRID_FILE} --run-dir {run_dir}`"
        )


def holds_grid(run_dir: Path) -> bool:
    """Whether a grid was begun in the directory."""
    return (run_dir / GRID_FILE).exists()

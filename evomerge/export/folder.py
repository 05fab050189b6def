"""The output folder: written completely or not at all, by one process at a time.

Everything is written to a hidden folder beside it, synced, and renamed in one step. So a kill or a
full disk never leaves a half-written model. A hidden lock file beside both is held meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import filelock
from safetensors import SafetensorError

from evomerge.errors import RunError, StorageError, one_line


def check_free(out: Path) -> None:
    """Refuse a folder that cannot be written, before the expensive work.

    Raises RunError when `out` holds something or another process is writing it.
    """
    target = out.expanduser().resolve()
    _refuse_existing(target, out)
    if _lock_of(target).exists():
        with _storage_errors(out), _alone(target, out):
            pass


@contextlib.contextmanager
def whole_folder(out: Path, *, needed_bytes: int = 0) -> Iterator[Path]:
    """Write into the yielded folder; it becomes `out` when the block ends without an error.

    needed_bytes: least size of the result; a disk with less space is refused at once. Left-overs
    of killed exports to the same place are removed first. Raises RunError when `out` holds
    something or another process is writing it, StorageError when it cannot be written. In both
    cases nothing of the attempt is left.
    """
    target = Path(os.path.expanduser(out)).resolve()
    _refuse_existing(target, out)
    with _storage_errors(out):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target, out):
            _refuse_existing(target, out)  # another may have finished it just now
            _remove_leftovers(target)
            _check_room(target.parent, out, needed_bytes)
            partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
            partial.mkdir()
            try:
                yield partial
                _sync(partial)
                _refuse_existing(target, out)
                partial.rename(target)
                _sync_path(target.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


def inside(folder: Path, name: str) -> Path:
    """The path of file `name` in `folder`; a path outside is an error of ours."""
    path = folder / name
    assert path.resolve().is_relative_to(folder.resolve()), f"{name} is outside the output folder"
    return path


def copy_files(source: Path, patterns: Sequence[str], folder: Path) -> None:
    """Copy the files of `source` that match into `folder`, at the same places, byte by byte."""
    paths = {path for pattern in patterns for path in source.glob(pattern)}
    found = {str(path.relative_to(source)): path for path in sorted(paths) if path.is_file()}
    copy_into(folder, found)


def copy_into(folder: Path, files: Mapping[str, Path]) -> None:
    """Copy files, byte by byte, to the paths in `folder` that are their names."""
    for name, path in files.items():
        target = inside(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)  # contents only: a hub's cache holds links to its blobs


def write_json(folder: Path, name: str, document: object, *, sort: bool = False) -> None:
    """Write a JSON document into `folder`, indented."""
    text = json.dumps(document, indent=2, sort_keys=sort, ensure_ascii=False) + "\n"
    inside(folder, name).write_text(text, encoding="utf-8")


def _check_room(parent: Path, out: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(parent).free
    if free_bytes < needed_bytes:
        raise StorageError(
            f"{out}: the model takes {needed_bytes / 1e9:.3f} GB and {free_bytes / 1e9:.3f} GB are "
            "free there; make room, or give another --out"
        )


def _refuse_existing(target: Path, out: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise RunError(f"{out}: exists already; give another --out")


def _remove_leftovers(target: Path) -> None:
    """Remove folders of killed writers; a living writer would hold the lock."""
    for leftover in sorted(target.parent.glob(f".{_escaped(target.name)}.partial-*")):
        shutil.rmtree(leftover)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _lock_of(target: Path) -> Path:
    """The lock is beside the folder, because the folder is renamed or removed meanwhile."""
    return target.with_name(f".{target.name}.lock")


@contextlib.contextmanager
def _alone(target: Path, out: Path) -> Iterator[None]:
    """Be the only writer of a folder; the kernel frees the lock of a killed process."""
    lock = filelock.FileLock(_lock_of(target))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        if not _lock_of(target).exists():  # some file systems report a refused lock as a taken one
            raise StorageError(
                f"{out}: cannot be written: no file can be made beside it; give another --out"
            ) from error
        raise RunError(
            f"{out}: another process is writing it; wait for that, or give another --out"
        ) from error
    try:
        yield
    finally:
        # Removed while it is held, so that a process that has opened it cannot lock it afterwards.
        _lock_of(target).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _storage_errors(out: Path) -> Iterator[None]:
    """Report in one line that the folder cannot be written; safetensors has its own errors."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = one_line(error.strerror if isinstance(error, OSError) else error)
        no_folder = isinstance(error, FileExistsError | NotADirectoryError)  # a file in its path
        raise StorageError(
            f"{out}: cannot be written ({reason}), and nothing is left of it; "
            f"{'' if no_folder else 'make room or '}give another --out"
        ) from error


def _sync(folder: Path) -> None:
    """Sync the folder to the disk, the files before the folders that list them."""
    for directory, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync_path(Path(directory, name))
        _sync_path(Path(directory))


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

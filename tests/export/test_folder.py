"""The output folder is there whole or not at all: after a kill, a full disk, or two at once."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest
import torch

from evomerge.errors import RunError, StorageError
from evomerge.export import folder as folder_module
from evomerge.export.checkpoint import weights_bytes
from evomerge.export.folder import check_free, inside, whole_folder
from evomerge.sources import Source
from tests.export.conftest import Family, contents, export_sources


def in_child(work: Callable[[], str]) -> tuple[int, str]:
    """Run in a process of its own; its exit code (negative: the signal) and what it returned.

    A fork, for starting Python anew and importing torch takes seconds. With one thread (see
    conftest) torch starts no threads that a fork would lose.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writer, work().encode())
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


class Deadly:
    """A source that kills its process when the last layer is merged."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def tensor(self, name: str) -> torch.Tensor:
        if "layers.3." in name:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._source.tensor(name)


def test_a_killed_export_leaves_no_folder_and_the_next_one_succeeds(
    family: Family, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def export() -> str:
        recipe = family.recipe()
        sources: dict[str, Any] = family.open(recipe)
        sources[str(family.japanese)] = Deadly(sources[str(family.japanese)])
        export_sources(recipe, sources, out, shard_bytes=30_000)
        return "not killed"

    code, said = in_child(export)
    assert code == -signal.SIGKILL, said
    assert not out.exists()
    (leftover,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert list(leftover.glob("model-*.safetensors")), "it was not killed in the middle of writing"
    family.export(out)
    family.export(tmp_path / "never-killed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["never-killed", "out"]
    assert contents(out) == contents(tmp_path / "never-killed")


@contextlib.contextmanager
def small_disk(folder: Path, *, size_bytes: int) -> Iterator[bool]:
    """A disk of this size at `folder`; false where this user may not mount one."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kind", ["small disk", "file size limit"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
    family: Family, tmp_path: Path, kind: str
) -> None:
    recipe = family.recipe()
    needed_bytes = weights_bytes(recipe, family.open(recipe))
    # Room for the tensors but not for the file's header, so the writing itself fails.
    pages_bytes = -(-needed_bytes // 4096) * 4096
    with small_disk(tmp_path / "disk", size_bytes=pages_bytes) as mounted:
        limited = kind == "file size limit" or not mounted

        def export() -> str:
            if limited:
                resource.setrlimit(resource.RLIMIT_FSIZE, (needed_bytes, needed_bytes))
            with pytest.raises(StorageError) as caught:
                family.export(tmp_path / "disk" / "out")
            return str(caught.value)

        code, said = in_child(export)
        assert code == 0, said
        assert ("File too large" if limited else "No space left on device") in said
        assert "make room" in said
        assert "\n" not in said
        assert list((tmp_path / "disk").iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = family.recipe()
    needed = weights_bytes(recipe, family.open(recipe))
    room = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda path: room)
    with pytest.raises(StorageError, match=r"out: the model takes 0\.\d+ GB and .* GB are free"):
        export_sources(recipe, family.open(recipe), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_and_kept(family: Family, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already; give another --out"):
        family.export(tmp_path)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_file_in_the_folder_s_place_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RunError, match="exists already"), whole_folder(tmp_path / "out"):
        pass
    assert contents(tmp_path) == {"out": b"mine"}


def test_a_file_in_the_path_of_a_folder_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "out", tmp_path / "file" / "deep" / "out"):
        refused = pytest.raises(StorageError, match="nothing is left of it; give another")
        with refused, whole_folder(out):
            pass


def test_a_place_where_nothing_can_be_made_is_not_called_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: object, **_options: object) -> None:
        raise filelock.Timeout("as some file systems answer")

    monkeypatch.setattr(folder_module.filelock.FileLock, "acquire", refuse)
    refused = pytest.raises(StorageError, match="no file can be made beside it")
    with refused, whole_folder(tmp_path / "out"):
        pass


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
    assert contents(tmp_path) == {"out/a.txt": b"a"}


def test_a_second_export_to_the_same_place_leaves_the_first_alone(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("first")
        with (
            pytest.raises(RunError, match="another process is writing it"),
            whole_folder(tmp_path / "out"),
        ):
            pass
    assert contents(tmp_path) == {"out/a.txt": b"first"}


def test_a_second_export_is_refused_until_the_first_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Syncing gigabytes takes long, and the folder is still being written all the while."""
    refused = []

    def come_second(path: int) -> None:
        with pytest.raises(RunError) as caught, whole_folder(tmp_path / "out"):
            pass
        refused.append(str(caught.value))

    monkeypatch.setattr(folder_module.os, "fsync", come_second)
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("first")
    # The file, its folder, and once it has its name the folder that this stands in.
    assert ["writing it" in said or "exists already" in said for said in refused] == [True] * 3
    assert contents(tmp_path) == {"out/a.txt": b"first"}


def test_a_folder_that_is_being_written_is_refused_before_any_work(tmp_path: Path) -> None:
    check_free(tmp_path / "out")
    with whole_folder(tmp_path / "out"), pytest.raises(RunError, match="is writing it"):
        check_free(tmp_path / "out")
    (tmp_path / "out" / "a.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        check_free(tmp_path / "out")


def test_the_lock_of_a_killed_export_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / ".out.lock").touch()
    check_free(tmp_path / "out")
    (tmp_path / ".out.lock").touch()
    with whole_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_left_overs_of_other_places_are_kept(tmp_path: Path) -> None:
    """`[a]` is a set to a shell; `.a.partial-1` belongs to another export than one to `[a]`."""
    (tmp_path / ".a.partial-1").mkdir()
    (tmp_path / ".[a].partial-1").mkdir()
    with whole_folder(tmp_path / "[a]"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.partial-1", "[a]"]


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "new" / "out") as folder:
            (folder / "a.txt").write_text("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "b/../../a"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(AssertionError, match="outside"):
        inside(tmp_path, name)

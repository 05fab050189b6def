"""A node of a cluster verifies an export as this machine does, or says why it cannot.

The node's process is played by this one.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import EvomergeError, RunError, WorkerError
from evomerge.export import node_verification
from evomerge.workers.cluster import Share
from tests.export.conftest import Searched, contents


class Process:
    """What a node does. seen: what its disk is; it sees no place if there is none."""

    def __init__(self, make: Callable[[], Any], seen: Callable[[Path], Path] | None) -> None:
        self.node = "127.0.0.3"
        self._made = make()
        self._seen = seen

    def ask(self, method: str, path: str) -> Any:
        return self._seen is not None and getattr(self._made, method)(path)

    def call(self, method: str, asked: Any, *, tell: Callable[[str], None]) -> Any:
        asked = pickle.loads(pickle.dumps(asked))
        if self._seen is not None:
            object.__setattr__(asked, "folder", self._seen(asked.folder))
        return getattr(self._made, method)(tell, asked)

    def close(self) -> None:
        pass


@pytest.fixture
def on_node(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def export(out: Path, seen: Callable[[Path], Path] | None, **options: Any) -> Any:
        monkeypatch.setattr(
            node_verification, "share_there", lambda *given, **named: Share(device="cpu")
        )
        monkeypatch.setattr(
            node_verification, "open_process", lambda make, *given, **named: Process(make, seen)
        )
        return searched.export(out, verify=True, ray_address="127.0.0.2:6379", **options)

    return export


def test_a_node_finds_what_is_found_here(
    searched: Searched, on_node: Callable[..., Any], tmp_path: Path
) -> None:
    said: list[str] = []
    there = on_node(tmp_path / "there", lambda folder: folder, say=said.append)
    here = searched.export(tmp_path / "here", verify=True)
    assert there.verified
    assert there.verification == here.verification
    assert [line.split(":")[0] for line in said[1:]] == ["verifying"] * 3


def test_a_node_that_does_not_see_the_folder_is_named_and_nothing_is_written(
    on_node: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"the node 127.0.0.3 does not see this place.*; give a fol"):
        on_node(tmp_path / "out", None)
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_sees_another_folder_is_refused(
    exported: Path, on_node: Callable[..., Any], tmp_path: Path
) -> None:
    stale = shutil.copytree(exported, tmp_path / "stale")
    (stale / "manifest.json").write_text((stale / "manifest.json").read_text() + "\n")
    with pytest.raises(RunError, match=r"stale: it is not the folder that the command has written"):
        on_node(tmp_path / "out", lambda folder: stale)


def test_a_node_that_is_lost_leaves_a_whole_folder_and_says_so(
    exported: Path, on_node: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*given: Any, **named: Any) -> None:
        raise WorkerError("the process on the node 127.0.0.3 is gone, or its machine is; try again")

    monkeypatch.setattr(Process, "call", lose)
    with pytest.raises(WorkerError, match=r"try again; .*/out is written, and not verified$"):
        on_node(tmp_path / "out", lambda folder: folder)
    assert contents(tmp_path / "out") == contents(exported)


def test_a_file_of_the_folder_that_differs_on_the_node_is_found(
    exported: Path, on_node: Callable[..., Any], tmp_path: Path
) -> None:
    def damage(folder: Path) -> Path:
        (folder / "config.json").write_text("{}")
        return folder

    report = on_node(tmp_path / "out", damage)
    assert not report.verified
    assert report.verification.changed == ("config.json",)


def test_a_task_file_that_differs_on_the_node_is_refused(
    on_node: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = node_verification.hash_tasks
    times = iter(range(2))

    def of_another_time(*given: Any) -> dict[str, str]:
        files = found(*given)
        assert "tasks/toy_choice.yaml" in files
        return {**files, "tasks/toy_choice.yaml": str(next(times))}

    monkeypatch.setattr(node_verification, "hash_tasks", of_another_time)
    with pytest.raises(
        EvomergeError,
        match=r"toy_choice\.yaml: not the task file that the command has read; give a",
    ):
        on_node(tmp_path / "out", lambda folder: folder)

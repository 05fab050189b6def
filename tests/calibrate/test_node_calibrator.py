"""Statistics that another process computes: the bytes of a calibration here, sent in blocks.

The other process is played by this one; `workers/test_cluster_process.py` has a real one.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.calibrate import (
    Calibration,
    NodeCalibrator,
    OpenCalibrator,
    RemoteCalibrator,
    Text,
    calibrate,
    node_calibrator,
)
from evomerge.errors import StorageError, WorkerError
from tests.calibrate.conftest import run, write_words
from tests.checkpoints import save_fine_tuned, save_tiny_llama

CALIBRATION = Calibration(sequences=4, tokens=12)
BLOCK_BYTES = 1000


class Node:
    """A process on a node, in this one. breaks: which call of compute is its last."""

    def __init__(self, text: Text, *, breaks: int = 0) -> None:
        self._calibrator = NodeCalibrator(text, CALIBRATION, "cpu")
        self._left = breaks
        self.largest_block = 0

    def call(
        self, method: str, *arguments: Any, tell: Callable[[Any], object] = lambda news: None
    ) -> Any:
        if method == "compute" and self._left:
            self._left -= 1
            if not self._left:
                raise WorkerError("the process on the node 127.0.0.3 is gone")
        return getattr(self._calibrator, method)(tell, *arguments)

    def ask(self, method: str, *arguments: Any) -> Any:
        block = getattr(self._calibrator, method)(*arguments)
        self.largest_block = max(self.largest_block, block.nbytes)
        return block


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    base = save_tiny_llama(tmp_path / "base", seed=0, layers=2, dtype=torch.bfloat16)
    return [base, save_fine_tuned(tmp_path / "expert", of=base, seed=1)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_words(tmp_path / "words.txt", count=60)


def run_there(
    models: list[Path],
    text: Path,
    out: Path,
    *,
    progress: Callable[[str, int, int], None] = lambda label, done, count: None,
    make: Callable[[Text], Node] = Node,
) -> Node:
    nodes = []

    @contextlib.contextmanager
    def open_there(text: Text) -> Iterator[OpenCalibrator]:
        nodes.append(make(text))
        yield lambda reference, source: RemoteCalibrator(nodes[0], reference)

    references = [str(model) for model in models]
    list(calibrate(references, text, out, CALIBRATION, progress, open_there))
    return nodes[0]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_are_those_of_a_calibration_here_and_come_in_small_blocks(
    models: list[Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(node_calibrator, "BLOCK_BYTES", BLOCK_BYTES)
    run(models, text, tmp_path / "here")
    told: list[tuple[str, int, int]] = []
    node = run_there(models, text, tmp_path / "there", progress=lambda *news: told.append(news))
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert len(files(tmp_path / "here")) == 4
    assert min(map(len, files(tmp_path / "here").values())) > 3 * BLOCK_BYTES
    assert node.largest_block == BLOCK_BYTES
    assert {news[0] for news in told} == set(files(tmp_path / "here"))
    assert told[3][1:] == (4, 4)
    assert list(scratch.iterdir()) == []


def test_what_is_there_already_is_not_computed_again(
    models: list[Path], text: Path, tmp_path: Path
) -> None:
    run(models, text, tmp_path / "out")
    node = run_there(models, text, tmp_path / "out")
    assert node.largest_block == 0


def test_files_that_were_finished_stay_and_nothing_else(
    models: list[Path], text: Path, tmp_path: Path
) -> None:
    with pytest.raises(WorkerError, match="is gone"):
        run_there(models, text, tmp_path / "out", make=lambda text: Node(text, breaks=3))
    run(models[:1], text, tmp_path / "one")
    assert files(tmp_path / "out") == files(tmp_path / "one")


def test_a_file_that_arrives_changed_is_refused(
    models: list[Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = NodeCalibrator.read

    def read_damaged(self: NodeCalibrator, start: int, count: int) -> Any:
        block = read(self, start, count).copy()
        block[-1] ^= 1
        return block

    monkeypatch.setattr(NodeCalibrator, "read", read_damaged)
    with pytest.raises(WorkerError, match=r"did not arrive as they were sent; try again$"):
        run_there(models[:1], text, tmp_path / "out")
    assert files(tmp_path / "out") == {}


def test_a_node_whose_disk_is_too_small_is_refused_before_the_model_is_read(
    models: list[Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(node_calibrator, "file_bytes", lambda *_: 2**60)
    wanted = rf"^{re.escape(str(scratch))}: cannot hold .* GB of statistics .*another TMPDIR$"
    with pytest.raises(StorageError, match=wanted):
        run_there(models[:1], text, tmp_path / "out")
    assert not (tmp_path / "out").exists() or files(tmp_path / "out") == {}

"""What a tracker may do, and that a search never suffers from it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import evomerge
from evomerge.cli import app
from evomerge.errors import InputError
from evomerge.search import run
from evomerge.search.events import Event, Note
from evomerge.track import (
    Ending,
    Point,
    Reached,
    TrackedRun,
    Tracker,
    TrackerKind,
    Tracking,
    registry,
    tracking,
)
from evomerge.track.points import names_of
from tests.own_parts import installed_example
from tests.search.jobs import LightPool


class Recorder(Tracker):
    """Keeps what it gets; `fails` is where it raises an error, `hangs` holds it up."""

    made: list[Recorder]

    def __init__(self, fails: str = "", hangs: threading.Event | None = None) -> None:
        self.fails, self.hangs = fails, hangs
        self.points: list[Point] = []
        self.endings: list[Ending] = []
        self.run: TrackedRun | None = None
        self.ended: bool | None = None
        self._fail("make")
        Recorder.made.append(self)

    def open(self, run: TrackedRun) -> str:
        self._fail("open")
        self.run = run
        return "run-1"

    def log(self, point: Point) -> None:
        self._fail("log")
        if self.hangs is not None:
            self.hangs.wait()
        self.points.append(point)

    def finish(self, ending: Ending) -> None:
        self._fail("finish")
        self.endings.append(ending)

    def close(self, *, ended: bool) -> None:
        self.ended = ended
        self._fail("close")

    def _fail(self, where: str) -> None:
        if self.fails == where:
            raise OSError(f"no network at {where}, token=hf_abcdefgh1234")
        if self.fails == f"exit {where}":
            raise SystemExit(1)


@pytest.fixture
def _recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    Recorder.made = []
    kind = TrackerKind(name="recorder", make=Recorder)
    monkeypatch.setitem(registry.BUILT_IN, "recorder", kind)


def notes_of(document: Any, run_dir: Path, track: Any) -> list[str]:
    """The notes on trackers of a search that comes to its end."""
    notes: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, Note) and "--track" in event.text:
            notes.append(event.text)

    assert evomerge.search(document, run_dir, observe=watch, track=track).finished
    return notes


@pytest.mark.usefixtures("_recorder")
def test_a_tracker_gets_the_job_all_points_and_the_end(document: Any, tmp_path: Path) -> None:
    assert notes_of(document, tmp_path / "run", "recorder") == []
    (recorder,) = Recorder.made
    assert recorder.run is not None
    assert recorder.run.job["budget"] == {"candidates": 12}
    assert (recorder.run.name, recorder.run.id) == ("sums", None)
    assert [p.step for p in recorder.points if p.axis == "candidate"] == [*range(1, 13)]
    assert [p.step for p in recorder.points if p.axis == "generation"] == [1, 2, 3]
    assert [ending.texts["headline"] for ending in recorder.endings] == [
        evomerge.open_run(tmp_path / "run").headline
    ]
    assert recorder.ended is True


@pytest.fixture(scope="module")
def searched(document: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A search that has ended, and its events."""
    events: list[Event] = []
    run_dir = tmp_path_factory.mktemp("searched") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "open_job_pool", lambda *given, **named: LightPool())
        evomerge.search(document, run_dir, observe=events.append)
    return run_dir, events


@pytest.mark.usefixtures("_recorder")
@pytest.mark.parametrize("where", ["open", "log", "finish", "close", "exit open", "exit log"])
def test_a_tracker_that_fails_is_noted_once_and_never_raises_an_error(
    searched: tuple[Path, list[Event]], where: str
) -> None:
    run_dir, events = searched
    notes: list[str] = []
    tracking = Tracking({"recorder": Recorder(fails=where)}, notes.append)
    for event in events:
        tracking(event)
    tracking.close()
    (run_dir / "tracker-recorder.json").unlink(missing_ok=True)
    assert len(notes) == 1
    assert notes[0].startswith("note: --track recorder gets nothing more (")
    assert notes[0].endswith("); the search goes on without it")
    assert "hf_abc" not in notes[0]


@pytest.mark.usefixtures("_recorder")
def test_a_tracker_whose_package_is_broken_is_noted(document: Any, tmp_path: Path) -> None:
    (note,) = notes_of(document, tmp_path / "run", {"recorder": {"fails": "make"}})
    assert note.startswith("note: --track recorder cannot be used (OSError: no network at make")


@pytest.mark.usefixtures("_recorder")
def test_a_tracker_that_hangs_does_not_hold_up_a_search(
    document: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "END_S", 0.05)
    hangs = threading.Event()
    try:
        (note,) = notes_of(document, tmp_path / "run", {"recorder": {"hangs": hangs}})
    finally:
        hangs.set()
    assert "it did not take the rest within 0.05 seconds" in note


@pytest.mark.usefixtures("_recorder")
def test_a_disk_that_takes_nothing_more_ends_the_tracking_only(
    document: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evomerge.study.write_whole", full)
    (note,) = notes_of(document, tmp_path / "run", "recorder")
    assert "No space left on device" in note


@pytest.mark.usefixtures("_recorder")
def test_a_search_that_stops_leaves_its_run_open_and_resume_goes_on_in_it(
    document: Any, tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if event.name == "generation_done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evomerge.search(document, tmp_path / "run", observe=stop, track="recorder")
    evomerge.resume(tmp_path / "run", track="recorder")
    first, second = Recorder.made
    assert first.ended is False
    assert second.run is not None
    assert second.run.id == "run-1"
    found = [(p.axis, p.step) for p in (*first.points, *second.points)]
    assert len(found) == len(set(found)) == 12 + 3


@pytest.mark.usefixtures("_recorder")
def test_a_search_that_cannot_start_leaves_nothing_of_a_tracker(
    document: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise evomerge.WorkerError("no worker")

    monkeypatch.setattr(run, "open_job_pool", refuse)
    with pytest.raises(evomerge.EvomergeError, match="nothing was started"):
        evomerge.search(document, tmp_path / "run", track=["tensorboard", "recorder"])
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_recorder")
def test_a_front_is_shown_point_by_point(document: Any, tmp_path: Path) -> None:
    front = {
        **document,
        "mode": "pareto",
        "optimizer": {"seed": 3, "population": 5},
        "budget": {"candidates": 10},
    }
    assert notes_of(front, tmp_path / "run", "recorder") == []
    result = evomerge.open_run(tmp_path / "run")
    (ending,) = Recorder.made[0].endings
    assert ending.values["outcome/points"] == len(result.front)
    assert len(ending.texts) == 1 + len(result.front)


@pytest.mark.parametrize(
    ("track", "says"),
    [
        (
            "tensorbord",
            "--track: tensorbord is not an installed tracker; did you mean tensorboard?",
        ),
        ("tensorboard:logdir=x", "--track tensorboard: no option logdir; it has dir"),
        ("tensorboard:dir", "--track tensorboard:dir: 'dir' is no option; write"),
        (["tensorboard", "tensorboard:dir=x"], "--track tensorboard: is given twice"),
        (7, "track: int: give names of trackers"),
        ({"tensorboard": {"x": 1}}, "--track tensorboard: no option x; it has dir"),
    ],
)
def test_what_is_no_tracker_is_refused_before_any_work(
    document: Any, tmp_path: Path, track: Any, says: str
) -> None:
    with pytest.raises(InputError) as refused:
        evomerge.search(document, tmp_path / "run", track=track)
    assert str(refused.value).startswith(says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["search", "resume", "grid"])
def test_a_missing_package_is_one_line_that_names_the_extra(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = registry.importlib.util.find_spec
    monkeypatch.setattr(
        registry.importlib.util,
        "find_spec",
        lambda name: None if name == "tensorboardX" else find_spec(name),
    )
    if command == "grid":
        given = tmp_path / "grid.yaml"
        given.write_text(GRID)
    else:
        given = tmp_path
    result = CliRunner().invoke(app, [command, str(given), "--track", "tensorboard"])
    assert result.exit_code == 2
    assert result.stderr == (
        "evomerge: --track tensorboard: tensorboardX is not installed; install the extra "
        "`tensorboard` (pip install 'evomerge[tensorboard]', in a checkout '.[tensorboard]')\n"
    )


GRID = """
name: small
models: {base: org/base, sources: [org/first, org/second]}
held_in:
  - {expert: first, task: sums_choice, metric: acc}
  - {expert: second, task: sums_said, metric: exact_match}
methods: [task_arithmetic]
"""


def test_names_of_values_are_plain_and_never_the_same() -> None:
    assert names_of(["a b", "a_b", "weight of 日本", "::"]) == {
        "a b": "a_b",
        "a_b": "a_b_2",
        "weight of 日本": "weight_of_日本",
        "::": "_",
    }


@pytest.fixture
def _own_tracker(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "site").mkdir()
    with installed_example("own_tracker", tmp_path / "site"):
        yield


@pytest.mark.usefixtures("_own_tracker")
def test_a_tracker_of_an_installed_package_is_used_by_its_name(
    document: Any, tmp_path: Path
) -> None:
    track = ["json_lines:decimals=3"]
    assert notes_of(document, tmp_path / "run", track) == []
    evomerge.resume(tmp_path / "run", set={"budget.candidates": 16}, track=track)
    lines = (tmp_path / "run" / "points.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["step"] for row in found if row.get("axis") == "candidate"] == [*range(1, 17)]
    assert [row["step"] for row in found if row.get("axis") == "generation"] == [1, 2, 3, 4]
    assert sum("headline" in row for row in found) == 2


def test_what_is_reached_covers_points_up_to_it() -> None:
    point = Point(axis="generation", step=3, values={})
    assert not Reached(candidates=9, generations=2).has(point)
    assert Reached(candidates=9, generations=2).after(point) == Reached(candidates=9, generations=3)

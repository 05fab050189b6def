"""TensorBoard: event files in the run directory, or in a folder of the user's.

The files say themselves which steps they hold, also after a kill that cut one short.
"""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar, text

from evomerge.track.points import Ending, Point, Reached, plain_name
from evomerge.track.tracker import TrackedRun, Tracker

_LENGTH = struct.Struct("<Q")
_CHECKSUM_BYTES = 4


class TensorBoardRun(Tracker):
    """A folder of event files, one for each start of the search.

    dir: folder that gets a folder of the run's name; RUN_DIR/tensorboard without it.
    """

    def __init__(self, *, dir: str | None = None) -> None:
        self._dir = dir
        self._last = 0

    def open(self, run: TrackedRun) -> str:
        """See Tracker; the id is the folder."""
        if self._dir is None:
            self._folder = run.run_dir / "tensorboard"
        else:
            self._folder = Path(self._dir, *filter(None, [run.group]), run.name).resolve()
        if self._folder.is_symlink():  # a run directory from someone else may have a link here
            raise OSError(f"{self._folder} is a link")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._found = _last_steps(self._folder)
        # Two files that begin in one second would have the same name.
        suffix = f".{secrets.token_hex(4)}"
        self._writer = EventsWriter(str(self._folder / "events"), suffix)
        if self._found == Reached():
            self._write(text("job", f"```yaml\n{run.job_text}```"), 0)
        return str(self._folder)

    def reached(self) -> Reached:
        """See Tracker."""
        return self._found

    def log(self, point: Point) -> None:
        """See Tracker."""
        numbers = [Summary.Value(tag=name, simple_value=v) for name, v in point.values.items()]
        self._write(Summary(value=numbers), point.step)
        self._last = max(self._last, point.step if point.axis == "generation" else 0)

    def finish(self, ending: Ending) -> None:
        """See Tracker."""
        step = max(self._last, self._found.generations)
        for name, value in ending.values.items():
            self._write(scalar(name, value), step)
        for name, written in ending.texts.items():
            shown = written if name == "headline" else f"```yaml\n{written}```"
            self._write(text(f"outcome/{plain_name(name)}", shown), step)

    def close(self, *, ended: bool) -> None:
        """See Tracker."""
        self._writer.close()

    def _write(self, summary: Summary, step: int) -> None:
        """Write to the file at once: one event, which a kill leaves whole or out."""
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()


def _last_steps(folder: Path) -> Reached:
    """The last steps that the event files of a folder hold."""
    last = {"candidate/number": 0, "generation/number": 0}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in read_events(path):
            for value in event.summary.value:
                if value.tag in last:
                    last[value.tag] = max(last[value.tag], event.step)
    return Reached(candidates=last["candidate/number"], generations=last["generation/number"])


def read_events(path: Path) -> Iterator[Event]:
    """The whole events of a file: length, checksum, event, checksum, again and again."""
    content = path.read_bytes()
    place = 0
    while place + _LENGTH.size <= len(content):
        (length,) = _LENGTH.unpack_from(content, place)
        begin = place + _LENGTH.size + _CHECKSUM_BYTES
        place = begin + length + _CHECKSUM_BYTES
        if place > len(content):  # a kill cut it short
            return
        yield Event.FromString(content[begin : begin + length])

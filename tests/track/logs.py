"""What trackers wrote, read back: one list of (axis, step, values) in the order of writing."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.track.wandb_files import records

Row = Mapping[str, Any]

AXES = ("candidate/number", "generation/number")


def steps(rows: list[Row], axis: str) -> list[int]:
    """The steps of one axis in the order in which they came."""
    return [int(row[axis]) for row in rows if axis in row]


def tensorboard_rows(folder: Path) -> list[Row]:
    """Every event with numbers on an axis, oldest file first; the record of TFRecords by hand."""
    from tensorboardX.proto.event_pb2 import Event

    rows = []
    for path in sorted(folder.glob("*tfevents*"), key=lambda path: path.stat().st_mtime_ns):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 12 + length + 4
            values = {
                value.tag: value.tensor.string_val[0].decode()
                if value.tensor.string_val
                else value.simple_value
                for value in event.summary.value
            }
            if values:
                rows.append({**values, "step": event.step})
    return rows


def wandb_rows(folder: Path) -> tuple[list[Row], Row, list[str]]:
    """Rows of the history, the summary, and the ids of the runs, of all offline runs."""
    from wandb.proto import wandb_internal_pb2

    rows: list[Row] = []
    summary: dict[str, Any] = {}
    ids = []
    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        for record in records(path.read_bytes()):
            found = wandb_internal_pb2.Record.FromString(record)
            if found.HasField("run"):
                ids.append(found.run.run_id)
            if found.HasField("history"):
                rows.append(
                    {name(item): json.loads(item.value_json) for item in found.history.item}
                )
            if found.HasField("summary"):
                summary |= {name(i): json.loads(i.value_json) for i in found.summary.update}
    return rows, summary, ids


def name(item: Any) -> str:
    """The key of an item, which may be nested."""
    return item.key or "/".join(item.nested_key)

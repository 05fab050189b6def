"""Weights & Biases: a run of a project, online or offline."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import wandb
from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.lib import wbauth

from evomerge.errors import InputError
from evomerge.track.points import Ending, Point, Reached
from evomerge.track.tracker import TrackedRun, Tracker
from evomerge.track.wandb_files import records

_NUMBER = {"candidate": "candidate/number", "generation": "generation/number"}

INIT_S = 20.0
"""Seconds for a server to answer; the end of the process waits for them too."""

FLUSH_S = 1.0
"""Seconds until what was logged is in the run's file; wandb's own 15 are lost at a kill."""

WRITTEN_S = 10.0
"""Seconds to wait for the file of a run that has ended; a full disk must not hold it up."""


class WandbRun(Tracker):
    """A run whose files are in RUN_DIR/wandb.

    project, entity, mode: as in wandb; by default what its environment variables say, and the
    project `evomerge`.
    """

    def __init__(
        self, *, project: str | None = None, entity: str | None = None, mode: str | None = None
    ) -> None:
        self._project = project or os.environ.get("WANDB_PROJECT") or "evomerge"
        self._entity = entity or os.environ.get("WANDB_ENTITY")
        self._mode = mode or os.environ.get("WANDB_MODE") or "online"
        if self._mode not in ("online", "offline", "disabled"):
            raise InputError(f"--track wandb:mode={self._mode}: write online or offline")
        if self._mode == "online" and not _logged_in():
            raise InputError(
                "--track wandb: there is no API key; run `wandb login`, set WANDB_API_KEY, or "
                "write --track wandb:mode=offline"
            )

    def open(self, run: TrackedRun) -> str:
        """See Tracker; the id is PROJECT/RUN."""
        project, _, id = (run.id or "").rpartition("/")
        if project != self._place:
            id = ""
        self._earlier = sorted((run.run_dir / "wandb").glob(f"*run-*-{id}/run-{id}.wandb"))
        self._run: Any = wandb.init(
            project=self._project,
            entity=self._entity,
            id=id or uuid.uuid4().hex[:12],
            name=run.name,
            group=run.group,
            resume="allow",
            dir=str(run.run_dir),
            config=dict(run.job),
            mode=self._mode,
            # Output of the search belongs to its own terminal, and the code of the user to no one.
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                init_timeout=INIT_S,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
                x_transaction_log_flush_interval=FLUSH_S,
            ),
        )
        if self._run.resumed or id:
            self._run.config.update(dict(run.job), allow_val_change=True)
        for axis, number in _NUMBER.items():
            self._run.define_metric(number)
            self._run.define_metric(f"{axis}/*", step_metric=number)
        for group in ("task_*", "cost/*", "coefficient_best/*", "coefficient_mean/*"):
            self._run.define_metric(group, step_metric=_NUMBER["generation"])
        return f"{self._place}/{self._run.id}"

    def reached(self) -> Reached | None:
        """See Tracker; a server knows the run, and offline its files do.

        The file counts and not what was logged: a kill takes what wandb had not written yet.
        """
        if self._mode == "offline":
            return _reached(self._earlier)
        if not self._run.resumed:
            return None
        summary = self._run.summary
        return Reached(
            candidates=int(summary.get(_NUMBER["candidate"]) or 0),
            generations=int(summary.get(_NUMBER["generation"]) or 0),
        )

    def log(self, point: Point) -> None:
        """See Tracker."""
        self._run.log(dict(point.values))

    def finish(self, ending: Ending) -> None:
        """See Tracker."""
        self._run.summary.update({**ending.values, **ending.texts})
        self._wait_for(lambda record: _holds(record, ending.texts))

    def close(self, *, ended: bool) -> None:
        """See Tracker."""
        self._run.finish(exit_code=0 if ended else 1)
        # wandb's service closes the file a moment after that; whoever reads it now would miss rows.
        self._wait_for(lambda record: bool(record.HasField("exit")))

    def _wait_for(self, wanted: Callable[[Any], bool]) -> None:
        """Wait until the file of an offline run has a record."""
        if self._mode != "offline":
            return
        file = Path(self._run.settings.sync_file)
        until = time.monotonic() + WRITTEN_S
        while not any(wanted(record) for record in _read(file)) and time.monotonic() < until:
            time.sleep(0.05)

    @property
    def _place(self) -> str:
        return f"{self._entity}/{self._project}" if self._entity else self._project


def _logged_in() -> bool:
    """Whether wandb has credentials; it would ask for them on the terminal."""
    host = wandb.setup().settings.base_url
    found = wbauth.authenticate_session(
        host=host, source="evomerge", prompt=False, update_session=False
    )
    return found is not None


def _read(file: Path) -> Iterator[Any]:
    """The records that are in the file of a run, up to the first that cannot be read."""
    try:
        for content in records(file.read_bytes()):
            yield Record.FromString(content)
    except (OSError, DecodeError):
        return


def _values(items: Any) -> dict[str, str]:
    """Name -> value as JSON of the items of a record."""
    return {item.key or "/".join(item.nested_key): item.value_json for item in items}


def _holds(record: Any, texts: Mapping[str, str]) -> bool:
    """Whether a record of the summary has these texts."""
    if not record.HasField("summary"):
        return False
    values = _values(record.summary.update)
    return all(name in values and json.loads(values[name]) == texts[name] for name in texts)


def _reached(files: list[Path]) -> Reached | None:
    """The last steps in the files of a run; None where there are none, as after a clean-up."""
    last = dict.fromkeys(_NUMBER.values(), 0)
    for file in files:
        for record in _read(file):
            if record.HasField("history"):
                values = _values(record.history.item)
                for number in last.keys() & values.keys():
                    last[number] = max(last[number], int(json.loads(values[number])))
    if not files:
        return None
    return Reached(candidates=last[_NUMBER["candidate"]], generations=last[_NUMBER["generation"]])

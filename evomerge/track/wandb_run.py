"""Weights & Biases: a run of a project, online or offline."""

from __future__ import annotations

import os
import uuid
from typing import Any

import wandb
from wandb.sdk.lib import wbauth

from evomerge.errors import InputError
from evomerge.track.points import Ending, Point, Reached
from evomerge.track.tracker import TrackedRun, Tracker

_NUMBER = {"candidate": "candidate/number", "generation": "generation/number"}

INIT_S = 20.0
"""Seconds for a server to answer; the end of the process waits for them too."""


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
        """See Tracker; only a server knows the run."""
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

    def close(self, *, ended: bool) -> None:
        """See Tracker."""
        self._run.finish(exit_code=0 if ended else 1)

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

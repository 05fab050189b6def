"""MLflow: a run of an experiment, on a server or in a database."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from evomerge.track.points import Ending, Point, Reached
from evomerge.track.tracker import TrackedRun, Tracker

_MOST = 1000
"""Metrics that the server takes at once."""

_MOST_PARAMS = 100
_LONGEST_PARAM = 500


class MlflowRun(Tracker):
    """A run; its metrics go in batches, each whole or not at all.

    uri, experiment: by default what MLflow's environment variables say, and the experiment
    `evomerge`.
    """

    def __init__(self, *, uri: str | None = None, experiment: str | None = None) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each table it makes
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "evomerge"

    def open(self, run: TrackedRun) -> str:
        """See Tracker; the id is MLflow's own."""
        client = self._client
        known = set() if run.id is None else self._runs(run.id)
        if run.id in known and run.id is not None:
            self._id = run.id
            client.update_run(self._id, status="RUNNING")
        else:
            found = client.get_experiment_by_name(self._experiment)
            experiment = (
                client.create_experiment(self._experiment) if found is None else found.experiment_id
            )
            tags = {"evomerge.group": run.group} if run.group else {}
            made = client.create_run(experiment, run_name=run.name, tags=tags)
            self._id = made.info.run_id
            params = [Param(key, value[:_LONGEST_PARAM]) for key, value in _flat(run.job)]
            for begin in range(0, len(params), _MOST_PARAMS):
                client.log_batch(self._id, params=params[begin : begin + _MOST_PARAMS])
        client.log_text(self._id, run.job_text, "job.yaml")
        return self._id

    def reached(self) -> Reached:
        """See Tracker."""
        metrics = self._client.get_run(self._id).data.metrics
        return Reached(
            candidates=int(metrics.get("candidate/number", 0)),
            generations=int(metrics.get("generation/number", 0)),
        )

    def log(self, point: Point) -> None:
        """See Tracker."""
        self._log(point.values, point.step, last=f"{point.axis}/number")

    def finish(self, ending: Ending) -> None:
        """See Tracker."""
        self._log(ending.values, 0)
        for name, written in ending.texts.items():
            if name == "headline":
                self._client.set_tag(self._id, "headline", written)
            else:
                self._client.log_text(self._id, written, f"{name}.yaml")

    def close(self, *, ended: bool) -> None:
        """See Tracker."""
        self._client.set_terminated(self._id, status="FINISHED" if ended else "KILLED")

    def _log(self, values: Mapping[str, float], step: int, last: str = "") -> None:
        """Log metrics; `last` goes with the last batch, as it says that the step is there."""
        at = int(time.time() * 1000)
        ordered = sorted(values.items(), key=lambda item: item[0] == last)
        metrics = [Metric(name, value, at, step) for name, value in ordered]
        for begin in range(0, len(metrics), _MOST):
            self._client.log_batch(self._id, metrics=metrics[begin : begin + _MOST])

    def _runs(self, id: str) -> set[str]:
        """The id, if its run is there."""
        from mlflow.exceptions import MlflowException

        try:
            return {self._client.get_run(id).info.run_id}
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return set()
            raise


def _flat(document: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """The values of a job with dotted keys, as `--set` writes them."""
    for key, value in document.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for place, entry in enumerate(value):
                yield from _flat(entry, f"{name}.{place}.")
        else:
            yield name, str(value)

"""A record of very many candidates, in the rows that a study writes, by one transaction."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

from evomerge.evaluate.candidate import Candidate, CandidateKey, Cost, Failed, Scored
from evomerge.study import Parameter, Study, create_study
from evomerge.study.trial_rows import _rows_of
from evomerge.study.writer import Writer
from tests.report.studies import SOURCES, TASKS, MadeUpSearch, layered, make_job

POPULATION = 50
REASON = "logits are not finite"


def write_many(run_dir: Path, candidates: int) -> None:
    """A search after so many candidates: baselines with their items, and whole generations."""
    draw = random.Random(0)
    recipe = layered(0)  # the same for all: to write others would take most of the time
    items = {task: tuple(range(32)) for task in TASKS}
    with create_study(run_dir, make_job(budget={"candidates": 2 * candidates})) as study:
        for _ in MadeUpSearch(study).baselines():
            pass
        with _written_at_once(study):
            for number in range(candidates):
                quality = 0.5 + 0.4 * number / candidates + draw.gauss(0, 0.03)
                key = CandidateKey(number // POPULATION + 1, number % POPULATION)
                genome = tuple(draw.gauss(quality, 0.1) for _ in SOURCES)
                means = {task: {"exact_match": quality} for task in TASKS}
                cost = Cost(merge_s=0.2, evaluate_s=draw.uniform(1, 2), items=64)
                failed = number % 97 == 50
                study.record(
                    Candidate(
                        key=key,
                        kind="genome",
                        label=str(key),
                        recipe=recipe,
                        items=items,
                        genome=genome,
                    ),
                    # Their items are in no file: a page of all candidates shows none.
                    Failed(reason=REASON, cost=cost) if failed else Scored(tasks={}, cost=cost),
                    score=None if failed else quality,
                    means={} if failed else means,
                    parameters={
                        name.rpartition("/")[2]: Parameter(value=value, low=-9.0, high=9.0)
                        for name, value in zip(SOURCES, genome, strict=True)
                    },
                )


@contextmanager
def _written_at_once(study: Study) -> Iterator[None]:
    """Gather the trials of the search that are recorded, and write them at the end."""
    writer = study._writer
    assert writer is not None
    trials: list[FrozenTrial] = []
    contents: list[Any] = []
    with (
        mock.patch.object(writer._search, "add_trial", trials.append),
        mock.patch.object(writer, "keep", contents.append),
    ):
        yield
    _insert(writer, trials)
    writer.keep(contents[-1])


def _insert(writer: Writer, trials: Sequence[FrozenTrial]) -> None:
    storage, study = writer._storage, writer._search._study_id
    before = storage.get_n_trials(study)
    with storage.engine.begin() as connection:
        last = connection.scalar(sqlalchemy.select(sqlalchemy.func.max(models.TrialModel.trial_id)))
        ids = range(last + 1, last + 1 + len(trials))
        rows: dict[Any, list[Mapping[str, Any]]] = {models.TrialModel: []}
        for place, (trial_id, trial) in enumerate(zip(ids, trials, strict=True)):
            rows[models.TrialModel].append(
                {
                    "trial_id": trial_id,
                    "number": before + place,
                    "study_id": study,
                    "state": trial.state,
                    "datetime_start": trial.datetime_start,
                    "datetime_complete": trial.datetime_complete,
                }
            )
            for table, values in _rows_of(trial).items():
                rows.setdefault(table, []).extend({"trial_id": trial_id, **row} for row in values)
        for table, every in rows.items():
            if every:
                connection.execute(sqlalchemy.insert(table), every)

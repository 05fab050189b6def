"""The demo's experts, searched for real but without a record on disk. For search_quality.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from simulated_search import MemoryStudy

from evomerge.evaluate.candidate import Candidate, CandidateKey, Scored
from evomerge.evaluate.objective import means_of
from evomerge.job import EvaluationSpec, JobSpec, load_job
from evomerge.search.ledger import Ledger
from evomerge.search.loop import SPACE_START
from evomerge.search.selection.finalists import Entrant
from evomerge.workers.pool import LocalPool
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob

JOB = Path(__file__).parents[1] / "examples" / "kana" / "job.yaml"
SPLIT = {"search": 0.16, "validation": 0.01, "test": 0.83}

TEST_ITEMS = 2_000
"""Of each task, for a true score: the same of all, so that differences know them better."""


class ModelProblem:
    """The demo's job over some 1,950 search items, 650 of each task.

    candidates: of a search that scores every candidate on all of them. items: what an economical
    one may score in all, a tenth of that. each: items of a candidate: evomerge's default.
    """

    candidates = 100
    items = candidates * 1_900 // 10

    def __init__(self, seed: int) -> None:
        torch.set_num_threads(1)
        self._seed = seed
        self.genes = len(_prepared(self._job({}, {}, {"candidates": 100})).space.genes)
        self.each = EvaluationSpec().items_each(genes=self.genes, tasks=3)

    def reserve(self, *, validated: bool) -> int:
        """Items kept back for baselines (twelve), and for seventeen finalists on validation."""
        return 12 * 120 + (17 * 125 if validated else 0)

    def open(
        self,
        *,
        evaluation: Mapping[str, object],
        optimizer: Mapping[str, object],
        budget: Mapping[str, int],
    ) -> Ledger:
        """A ledger over the models, its record in memory."""
        preparation = _prepared(self._job(evaluation, optimizer, budget))
        return Ledger(
            preparation=preparation,
            study=MemoryStudy(),  # type: ignore[arg-type]
            pool=LocalPool(preparation),
        )

    def true_score(self, ledger: Ledger, entrant: Entrant) -> float:
        """On the test items, which no search saw."""
        return _test(ledger, entrant)

    def start_score(self, ledger: Ledger) -> float:
        """The same of the start of the space, for which no seed matters."""
        global _start  # a process scores it once
        if _start is None:
            trials = ledger.study.trials_of("baseline")
            start = next(trial for trial in trials if trial.label == SPACE_START)
            _start = _test(ledger, Entrant(label="", role="model", recipe=start.recipe))
        return _start

    def _job(
        self,
        evaluation: Mapping[str, object],
        optimizer: Mapping[str, object],
        budget: Mapping[str, int],
    ) -> str:
        document = load_job(JOB).model_dump(mode="json")
        document["report"] = []
        document["evaluation"] |= {"split": SPLIT, "items_for_baselines": 120, **evaluation}
        document["optimizer"] |= {"seed": self._seed, **optimizer}
        document["budget"] = dict(budget)
        return JobSpec.model_validate(document).model_dump_json()


@cache
def _prepared(job: str) -> PreparedJob:
    return prepare(JobSpec.model_validate_json(job))


_start: float | None = None


def _test(ledger: Ledger, entrant: Entrant) -> float:
    preparation = ledger.preparation
    tasks = preparation.job.search_tasks
    candidate = Candidate(
        key=CandidateKey(-2, 0),
        kind="finalist",
        label=entrant.label,
        recipe=entrant.recipe,
        items={task: preparation.suite.items(task, "test")[:TEST_ITEMS] for task in tasks},
    )
    [(_, outcome)] = ledger.pool.evaluate([candidate])
    assert isinstance(outcome, Scored)
    return preparation.objective.score(means_of(outcome.tasks))

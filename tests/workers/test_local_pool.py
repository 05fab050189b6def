"""One worker in this process: what fails a candidate, and what is not its fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from evomerge.errors import SourceError, WorkerError
from evomerge.evaluate.candidate import (
    Candidate,
    CandidateKey,
    Evaluation,
    Failed,
    Scored,
    TaskItems,
)
from evomerge.evaluate.suite import TaskSuite
from evomerge.recipe import Recipe, RecipeModel
from evomerge.workers.live_models import LiveModels
from evomerge.workers.pool import LocalPool
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.search.jobs import make_job, write_models


@pytest.fixture(scope="module")
def preparation(tmp_path_factory: pytest.TempPathFactory) -> PreparedJob:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return prepare(make_job(folder))


def candidate(preparation: PreparedJob) -> Candidate:
    base, first, _ = preparation.sources
    return Candidate(
        key=CandidateKey(1, 0),
        kind="genome",
        label="",
        recipe=Recipe(
            merge_method="task_arithmetic",
            base_model=base,
            models=(RecipeModel(model=first, parameters={"weight": 0.4}),),
            out_dtype="float32",
        ),
        items={"sums_choice": (0, 1, 2), "sums_said": (0, 1)},
    )


class Attempts:
    """Fails the first calls of what it stands for, then lets them through."""

    def __init__(self, original: Callable[..., object], error: BaseException, times: int) -> None:
        self.original, self.error, self.left = original, error, times

    def __get__(self, instance: object, owner: object) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            if self.left:
                self.left -= 1
                raise self.error
            return self.original(instance, *given, **named)

        return call


def outcome_of(preparation: PreparedJob) -> tuple[Evaluation, list[str], list[float]]:
    said: list[str] = []
    slept: list[float] = []
    with LocalPool(preparation, say=said.append, sleep=slept.append) as pool:
        [(_, outcome)] = pool.evaluate([candidate(preparation)])
    return outcome, said, slept


def scores_of(outcome: Evaluation) -> Mapping[str, TaskItems]:
    assert isinstance(outcome, Scored), outcome
    return outcome.tasks


SHORT = [
    MemoryError("72 GB"),
    torch.OutOfMemoryError("CUDA out of memory"),
    OSError(5, "Input/output error"),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("part", [(LiveModels, "hold"), (TaskSuite, "score")])
def test_what_a_machine_lacks_for_a_while_changes_no_score(
    preparation: PreparedJob,
    monkeypatch: pytest.MonkeyPatch,
    part: tuple[type, str],
    error: BaseException,
) -> None:
    expected, said, _ = outcome_of(preparation)
    assert said == []
    monkeypatch.setattr(*part, Attempts(getattr(*part), error, 2))
    outcome, said, slept = outcome_of(preparation)
    assert scores_of(outcome) == scores_of(expected)
    assert slept == [1.0, 5.0]
    assert str(error) in said[0]


def test_a_machine_that_stays_short_fails_no_candidate(
    preparation: PreparedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        TaskSuite, "score", Attempts(TaskSuite.score, MemoryError("72 GB"), times=99)
    )
    with pytest.raises(
        WorkerError, match=r"ran short 4 times while g0001-i000 was scored \(Memory"
    ):
        outcome_of(preparation)


def test_a_source_that_cannot_be_read_for_a_while_is_read_again(
    preparation: PreparedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = SourceError("first: cannot be read")
    error.__cause__ = OSError(5, "Input/output error")
    monkeypatch.setattr(LiveModels, "hold", Attempts(LiveModels.hold, error, 1))
    outcome, said, _ = outcome_of(preparation)
    assert scores_of(outcome)
    assert len(said) == 1
    monkeypatch.setattr(LiveModels, "hold", Attempts(LiveModels.hold, SourceError("damaged"), 1))
    with pytest.raises(SourceError, match="damaged"):
        outcome_of(preparation)


def test_an_error_of_the_candidate_fails_it_at_once(
    preparation: PreparedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        LiveModels, "hold", Attempts(LiveModels.hold, RecursionError("too deep"), 99)
    )
    outcome, said, slept = outcome_of(preparation)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "RecursionError: too deep"
    assert said == slept == []


def test_a_metric_that_some_item_lacks_fails_the_candidate_by_name(
    preparation: PreparedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(*_: object) -> dict[str, TaskItems]:
        return {
            "sums_choice": TaskItems(ids=(0,), metrics={}),
            "sums_said": TaskItems(ids=(0,), metrics={"exact_match": (1.0,)}),
        }

    monkeypatch.setattr(TaskSuite, "score", score)
    outcome, _, _ = outcome_of(preparation)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "sums_choice/acc: the task gives no value of it for some item"

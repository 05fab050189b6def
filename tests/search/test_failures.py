"""Failures of all candidates at once end a search and stay out of its record; others stay in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.errors import WorkerError
from evomerge.evaluate.candidate import (
    Candidate,
    Evaluation,
    Failed,
    Observer,
    Scored,
    TaskItems,
    ignore,
)
from evomerge.search.ledger import Ledger
from evomerge.search.loop import run_search
from evomerge.study import create_study, read_study, resume_study
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.search.jobs import TASKS, LightPool, job_document, make_job, write_models

Fails = Callable[[Candidate], bool]


class FailingPool(LightPool):
    """Fails some candidates; scores the others by hash, or all alike."""

    def __init__(self, fails: Fails = lambda candidate: False, score: float | None = None) -> None:
        self.fails = fails
        self.score = score
        self.asked: list[Candidate] = []

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        for candidate, outcome in super().evaluate(candidates, observe):
            self.asked.append(candidate)
            if self.fails(candidate):
                yield candidate, Failed(reason=f"{candidate.key} has no answer")
            elif self.score is not None and isinstance(outcome, Scored):
                yield candidate, _all_alike(outcome, self.score)
            else:
                yield candidate, outcome


def _all_alike(outcome: Scored, score: float) -> Scored:
    return Scored(
        tasks={
            task: TaskItems(
                ids=scored.ids,
                metrics={metric: (score,) * len(scored.ids) for metric in scored.metrics},
            )
            for task, scored in outcome.tasks.items()
        }
    )


@pytest.fixture(scope="module")
def preparation(tmp_path_factory: pytest.TempPathFactory) -> PreparedJob:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return prepare(make_job(folder))


def run(
    run_dir: Path, preparation: PreparedJob, pool: FailingPool, said: list[str] | None = None
) -> None:
    fresh = not (run_dir / "job.yaml").exists()
    study = create_study(run_dir, preparation.job) if fresh else resume_study(run_dir)
    with study:
        say = [].append if said is None else said.append
        run_search(Ledger(preparation=preparation, study=study, pool=pool, say=say))


def record(run_dir: Path) -> list[Any]:
    with read_study(run_dir) as study:
        return [(t.key, t.genome, t.score, t.failure) for t in study.trials]


def test_a_generation_that_fails_as_a_whole_ends_the_search_and_is_tried_again(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    run(tmp_path / "whole", preparation, FailingPool())
    second = FailingPool(lambda candidate: candidate.key.generation == 2)
    said = r"^all 4 candidates of generation 2 failed, so none is recorded: g0002-i00\d has no"
    for _ in range(2):
        with pytest.raises(WorkerError, match=said):
            run(tmp_path / "parts", preparation, second)
        assert max(key.generation for key, *_ in record(tmp_path / "parts")) == 1
    run(tmp_path / "parts", preparation, FailingPool())
    assert record(tmp_path / "parts") == record(tmp_path / "whole")


def test_candidates_that_fail_beside_others_are_recorded_as_failed(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    some = FailingPool(lambda one: one.key.generation > 0 and one.key.place < 3)
    run(tmp_path / "run", preparation, some)
    failed = [key for key, _, _, failure in record(tmp_path / "run") if failure is not None]
    assert len(failed) == 9
    again = FailingPool()
    run(tmp_path / "run", preparation, again)
    assert again.asked == [], "a failure of a candidate's own is not tried again"


def test_baselines_that_all_fail_end_the_search_and_are_tried_again(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    run(tmp_path / "whole", preparation, FailingPool())
    with pytest.raises(
        WorkerError, match=r"^no baseline could be scored: g0000-i000 has no answer"
    ):
        run(tmp_path / "parts", preparation, FailingPool(lambda candidate: True))
    assert record(tmp_path / "parts") == []
    run(tmp_path / "parts", preparation, FailingPool())
    assert record(tmp_path / "parts") == record(tmp_path / "whole")


def test_baselines_that_fail_beside_others_are_recorded_as_failed(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    run(tmp_path / "run", preparation, FailingPool(lambda one: one.label in ("TIES", "base")))
    failed = [failure for *_, failure in record(tmp_path / "run") if failure is not None]
    assert len(failed) == 2


def test_a_task_that_exits_ends_the_search_with_its_name_and_the_way_on(tmp_path: Path) -> None:
    write_models(tmp_path)
    shutil.copytree(TASKS, tmp_path / "tasks")
    with (tmp_path / "tasks" / "sums_said.yaml").open("a") as stream:
        stream.write("process_results: !function exits.score\n")
    (tmp_path / "tasks" / "exits.py").write_text(
        "def score(doc, results):\n    raise SystemExit(0)\n"
    )
    evaluation = {"task_folders": [str(tmp_path / "tasks")], "items_for_baselines": 8}
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(job_document(tmp_path, evaluation=evaluation)))
    result = CliRunner().invoke(app, ["search", str(job), "--run-dir", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith(
        "evomerge: no baseline could be scored: task sums_said: its own code fail"
    )
    assert last.endswith(f"(SystemExit: 0); go on with: evomerge resume {tmp_path / 'run'}")


@pytest.mark.parametrize(
    ("score", "remark"),
    [
        (1.0, "note: base scores 1.000 in everything before any search (so do "),
        (0.0, "note: all 9 baselines score 0.000 in everything: the search cannot tell merges"),
        (0.5, None),
        (None, None),
    ],
)
def test_baselines_that_leave_nothing_to_find_are_remarked_on(
    tmp_path: Path, preparation: PreparedJob, score: float | None, remark: str | None
) -> None:
    said: list[str] = []
    run(tmp_path / "run", preparation, FailingPool(score=score), said)
    assert [line[: len(remark or "")] for line in said] == ([remark] if remark else [])

"""Item results that are lost or damaged are scored again, and are what they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import RunError
from evomerge.evaluate.candidate import (
    Candidate,
    CandidateKey,
    Evaluation,
    Failed,
    Observer,
    Scored,
    ignore,
)
from evomerge.search.ledger import Ledger
from evomerge.search.run import run_job
from evomerge.study import create_study, read_study, resume_study
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.search.jobs import JOBS, LightPool, job_document, make_job, write_models

EVALUATION = {"items_per_generation": 64, "items_for_baselines": 32, "finalists": 2}


class CountingPool(LightPool):
    """Counts how often it was asked for a candidate."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        for candidate, outcome in super().evaluate(candidates, observe):
            self.asked[str(candidate.key)] += 1
            yield candidate, self.changed(candidate, outcome)

    def changed(self, candidate: Candidate, outcome: Evaluation) -> Evaluation:
        return outcome


class OtherPool(CountingPool):
    """A machine that scores otherwise than the one where the search began."""

    def changed(self, candidate: Candidate, outcome: Evaluation) -> Evaluation:
        assert isinstance(outcome, Scored)
        tasks = {
            name: replace(
                task, metrics={m: tuple(1.0 - v for v in vs) for m, vs in task.metrics.items()}
            )
            for name, task in outcome.tasks.items()
        }
        return replace(outcome, tasks=tasks)


class FailingPool(CountingPool):
    """Fails one candidate in its second block, or in the block after those it has been asked."""

    def __init__(self, fails: str, *, blocks: int = 1) -> None:
        super().__init__()
        self._fails, self._blocks = fails, blocks

    def changed(self, candidate: Candidate, outcome: Evaluation) -> Evaluation:
        fails = str(candidate.key) == self._fails and self.asked[self._fails] > self._blocks
        return Failed(reason="memory ran out") if fails else outcome


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def prepared(models: Path, job: str) -> PreparedJob:
    evaluation = {**job_document(models)["evaluation"], **EVALUATION}
    return prepare(make_job(models, **{"evaluation": evaluation, **JOBS[job]}))


def run(run_dir: Path, preparation: PreparedJob, pool: LightPool) -> str:
    fresh = not (run_dir / "job.yaml").exists()
    study = create_study(run_dir, preparation.job) if fresh else resume_study(run_dir)
    with study, pool:
        found: Any = run_job(Ledger(preparation=preparation, study=study, pool=pool))
        return repr((found, study.trials))


def item_files(run_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run_dir / "items").iterdir()}


def of_each_kind(run_dir: Path) -> list[str]:
    """A recorded candidate of every kind and stage, the second of each where there are two."""
    with read_study(run_dir) as study:
        kinds: dict[object, list[str]] = {}
        for trial in study.trials:
            kind = (trial.kind, trial.stage, trial.key.generation < -1)
            kinds.setdefault(kind, []).append(str(trial.key))
    return [keys[1] if len(keys) > 1 else keys[0] for keys in kinds.values()]


def lose(run_dir: Path, keys: Sequence[str]) -> None:
    """Delete, cut, change and exchange the files of these."""
    for number, key in enumerate(keys):
        path = run_dir / "items" / f"{key}.parquet"
        content = bytearray(path.read_bytes())
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.write_bytes(content[: len(content) // 2])
        else:
            others = sorted(set(path.parent.iterdir()) - {path})
            path.write_bytes(others[0].read_bytes())


@pytest.mark.parametrize("job", ["parameter_space", "hybrid", "pareto"])
def test_lost_item_results_are_scored_again_and_nothing_else(
    tmp_path: Path, models: Path, job: str
) -> None:
    preparation = prepared(models, job)
    found = run(tmp_path / "run", preparation, LightPool())
    files = item_files(tmp_path / "run")
    lost = of_each_kind(tmp_path / "run")
    lose(tmp_path / "run", lost)
    assert item_files(tmp_path / "run") != files
    pool = CountingPool()
    assert run(tmp_path / "run", preparation, pool) == found
    assert set(pool.asked) == set(lost)
    assert item_files(tmp_path / "run") == files


def test_candidates_taken_from_the_record_are_not_announced_as_recorded_again(
    tmp_path: Path, models: Path
) -> None:
    preparation = prepared(models, "parameter_space")
    run(tmp_path / "run", preparation, LightPool())
    lose(tmp_path / "run", of_each_kind(tmp_path / "run"))
    announced: list[CandidateKey] = []
    with resume_study(tmp_path / "run") as study, LightPool() as pool:
        run_job(
            Ledger(
                preparation=preparation,
                study=study,
                pool=pool,
                observe=lambda step, key: announced.append(key) if step == "recorded" else None,
            )
        )
    assert announced == []


@pytest.mark.parametrize("kind", ["g0000-i002", "g0002-i001"])
def test_item_results_that_come_out_otherwise_are_refused(
    tmp_path: Path, models: Path, kind: str
) -> None:
    preparation = prepared(models, "parameter_space")
    run(tmp_path / "run", preparation, LightPool())
    path = tmp_path / "run" / "items" / f"{kind}.parquet"
    path.unlink()
    with pytest.raises(RunError, match="are missing, and scored again they differ"):
        run(tmp_path / "run", preparation, OtherPool())
    assert not path.exists()
    with pytest.raises(RunError, match="could not be scored again"):
        run(tmp_path / "run", preparation, FailingPool(kind, blocks=0))
    assert not path.exists()
    run(tmp_path / "run", preparation, LightPool())
    assert path.exists()


def test_lost_blocks_of_a_candidate_that_failed_are_scored_again(
    tmp_path: Path, models: Path
) -> None:
    preparation = prepared(models, "parameter_space")
    failed = "g0002-i001"
    found = run(tmp_path / "run", preparation, FailingPool(failed))
    with read_study(tmp_path / "run") as study:
        blocks = study.trial(CandidateKey.parse(failed)).blocks
    assert blocks is not None and len(blocks) == 1
    files = item_files(tmp_path / "run")
    [block] = [name for name in files if "block" in name]
    for content in (None, files[block][:50]):
        (tmp_path / "run" / "items" / block).unlink()
        if content is not None:
            (tmp_path / "run" / "items" / block).write_bytes(content)
        pool = CountingPool()
        assert run(tmp_path / "run", preparation, pool) == found
        assert pool.asked == {failed: 1}
        assert set(item_files(tmp_path / "run")) == set(files)
    (tmp_path / "run" / "items" / block).unlink()
    with pytest.raises(RunError, match="scored again"):
        run(tmp_path / "run", preparation, OtherPool())

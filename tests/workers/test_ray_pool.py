"""Two Ray workers give what one process gives, and survive the death of a worker.

Ray is imported by the pool alone, which first says that all is to listen on the loopback.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest
import torch

from evomerge.errors import JobError, WorkerError
from evomerge.evaluate.answers import Answers
from evomerge.evaluate.candidate import Candidate, CandidateKey, Evaluation, Failed, Scored
from evomerge.recipe import Recipe, RecipeModel
from evomerge.workers.dispatch import Patience
from evomerge.workers.pool import LocalPool, Pool
from evomerge.workers.pool_choice import open_pool, set_up_ray
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.search.jobs import make_job, write_models

if TYPE_CHECKING:
    from evomerge.workers.ray_session import RaySession

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    write_models(folder)
    for name in ("deadly.py", "deadly.yaml"):
        shutil.copy(HERE / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def preparation(folder: Path) -> PreparedJob:
    job = make_job(
        folder,
        objectives=[{"task": "deadly", "metric": "exact_match"}],
        evaluation={"task_folders": [str(folder)]},
        compute={"device": "cpu", "workers": 2},
    )
    return prepare(job)


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the pool says."""
    return []


@pytest.fixture(scope="module")
def earlier(first_session: RaySession) -> tuple[int, bool]:
    """A session of this process that has ended: its machines, and whether Ray has gone on."""
    from evomerge.workers import ray_session

    machines = len(ray_session.nodes())
    first_session.close()
    return machines, ray_session.ray.is_initialized()


@pytest.fixture(scope="module")
def pool(earlier: tuple[int, bool], preparation: PreparedJob, said: list[str]) -> Iterator[Pool]:
    patience = Patience(least_s=4.0, medians=2.0, deaths=2, restarts=100)
    with open_pool(preparation, say=said.append, patience=patience) as pool:
        assert len(process_ids(pool)) == 2
        yield pool


def process_ids(pool: Pool) -> tuple[int, ...]:
    found: tuple[int, ...] = pool.process_ids  # type: ignore[attr-defined]
    return found


def candidates(preparation: PreparedJob, count: int) -> list[Candidate]:
    base, first, second = preparation.sources
    items = {"deadly": preparation.suite.items("deadly", "search")}
    return [
        Candidate(
            key=CandidateKey(1, place),
            kind="genome",
            label=str(place),
            recipe=Recipe(
                merge_method="task_arithmetic",
                base_model=base,
                models=(
                    RecipeModel(model=first, parameters={"weight": 0.1 + 0.2 * place}),
                    RecipeModel(model=second, parameters={"weight": 0.7 - 0.1 * place}),
                ),
                out_dtype="float32",
            ),
            items=items,
        )
        for place in range(count)
    ]


def scores(
    outcomes: Iterator[tuple[Candidate, Evaluation]],
) -> dict[CandidateKey, tuple[object, Answers]]:
    found = {}
    for candidate, outcome in outcomes:
        assert isinstance(outcome, Scored), outcome
        assert candidate.key not in found, "scored twice"
        found[candidate.key] = outcome.tasks, outcome.answers
    return found


def test_a_process_may_have_one_session_after_another(
    earlier: tuple[int, bool], pool: Pool
) -> None:
    from evomerge.workers import ray_session

    assert earlier == (1, False)
    assert ray_session.ray.is_initialized()
    assert len(ray_session.nodes()) == 1


def test_two_workers_give_the_scores_of_one(preparation: PreparedJob, pool: Pool) -> None:
    asked = candidates(preparation, 5)
    asked[3] = replace(asked[3], keep_answers=True)
    before = torch.get_num_threads()
    with LocalPool(preparation) as alone:
        expected = scores(alone.evaluate(asked))
    torch.set_num_threads(before)
    assert scores(pool.evaluate(asked)) == expected
    answering = [candidate.key for candidate in asked if expected[candidate.key][1]]
    assert answering == [asked[3].key]


def test_a_killed_worker_costs_a_retry_and_nothing_else(
    preparation: PreparedJob, pool: Pool, folder: Path
) -> None:
    asked = candidates(preparation, 4)
    undisturbed = scores(pool.evaluate(asked))
    (folder / "kill-once").touch()
    assert scores(pool.evaluate(asked)) == undisturbed
    assert not (folder / "kill-once").exists(), "no worker was killed"


def test_a_candidate_that_kills_every_worker_is_recorded_as_failed(
    preparation: PreparedJob, pool: Pool, folder: Path
) -> None:
    (folder / "kill-always").touch()
    try:
        [(_, outcome)] = pool.evaluate(candidates(preparation, 1))
    finally:
        (folder / "kill-always").unlink()
    assert isinstance(outcome, Failed)
    assert outcome.reason == "took its worker down 2 times"
    assert len(scores(pool.evaluate(candidates(preparation, 2)))) == 2


def test_a_worker_that_is_stopped_is_replaced_and_its_candidate_is_scored_by_another(
    preparation: PreparedJob, pool: Pool, said: list[str]
) -> None:
    asked = candidates(preparation, 4)
    undisturbed = scores(pool.evaluate(asked))
    said.clear()
    stopped = psutil.Process(process_ids(pool)[0])
    stopped.suspend()
    assert scores(pool.evaluate(asked)) == undisturbed
    assert re.match(r"worker [12] stands still, stopped by a signal", said[0])
    assert len(scores(pool.evaluate(candidates(preparation, 6)))) == 6
    stopped.wait(timeout=600)  # it is not left behind


def test_a_shortage_of_memory_that_passes_fails_no_candidate(
    preparation: PreparedJob, pool: Pool, folder: Path, said: list[str]
) -> None:
    asked = candidates(preparation, 3)
    undisturbed = scores(pool.evaluate(asked))
    said.clear()
    (folder / "short-once").touch()
    assert scores(pool.evaluate(asked)) == undisturbed
    [line] = said
    assert line.endswith(
        "tried again in 1 s, because the machine ran short: MemoryError: no room for a list"
    )


def test_a_task_that_exits_fails_the_candidate_and_keeps_the_worker(
    preparation: PreparedJob, pool: Pool, folder: Path
) -> None:
    before = process_ids(pool)
    (folder / "exit").touch()
    try:
        [(_, outcome)] = pool.evaluate(candidates(preparation, 1))
    finally:
        (folder / "exit").unlink()
    assert isinstance(outcome, Failed)
    assert "task deadly: its own code failed on item" in outcome.reason
    assert "SystemExit" in outcome.reason
    assert process_ids(pool) == before


def test_more_workers_than_there_is_room_for_are_refused_at_once(
    preparation: PreparedJob, pool: Pool
) -> None:
    from evomerge.workers.ray_pool import RayPool

    with pytest.raises(JobError, match=r"^compute.workers: 9 workers .* has room for 2; set it to"):
        RayPool(preparation, workers=9)
    assert len(scores(pool.evaluate(candidates(preparation, 2)))) == 2, "the session goes on"


def test_nothing_listens_beyond_this_machine(pool: Pool) -> None:
    here = psutil.Process()
    addresses = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_the_token_of_a_session_is_for_this_user_alone(pool: Pool) -> None:
    environment = psutil.Process(process_ids(pool)[0]).environ()
    token = Path(environment["RAY_AUTH_TOKEN_PATH"])
    assert environment["RAY_AUTH_MODE"] == "token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_a_session_that_cannot_be_started_is_refused_in_one_line_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_up_ray()
    from evomerge.workers import ray_session

    def refuse(**_: object) -> None:
        raise RuntimeError("Failed to start GCS.\nLast lines:\n")

    monkeypatch.setattr(ray_session.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_session.ray, "init", refuse)
    monkeypatch.setattr(ray_session.ray, "shutdown", lambda: None)
    with pytest.raises(
        WorkerError, match=r"^Ray cannot start workers .*Failed to start GCS"
    ) as told:
        ray_session.RaySession(workers=2, address=None)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def silent_ray(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A Ray that never closes: a process of its session, stopped, whose parent says nothing."""
    from evomerge.workers import ray_session

    released = threading.Event()
    context = SimpleNamespace(get_session_name=lambda: tmp_path.name)
    for name, put in {
        "is_initialized": lambda: False,
        "init": lambda **_: None,
        "get_runtime_context": lambda: context,
        "shutdown": released.wait,
    }.items():
        monkeypatch.setattr(ray_session.ray, name, put)
    monkeypatch.setattr(ray_session, "_CLOSING_S", 0.05)
    monkeypatch.setattr(ray_session, "_KILLED_S", 0.05)
    with (tmp_path / "head.out").open("wb") as log:
        head = subprocess.Popen(["sleep", "600"], stdout=log)
    head.send_signal(signal.SIGSTOP)
    yield head
    released.set()
    head.kill()
    head.wait()


def test_a_session_whose_head_stands_still_is_ended_by_force(
    silent_ray: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from evomerge.workers import ray_session

    forgotten: list[object] = []
    monkeypatch.setattr(ray_session.atexit, "unregister", forgotten.append)
    with (tmp_path / "head.out").open() as log:
        reader = subprocess.Popen(["sleep", "600"], stdin=log)  # as one who reads the logs
    try:
        ray_session.RaySession(workers=2, address=None).close()
        assert silent_ray.wait(timeout=600) == -signal.SIGKILL
        assert reader.poll() is None
    finally:
        reader.kill()
        reader.wait()
    assert forgotten == [ray_session.ray.shutdown]


def test_a_cluster_that_does_not_answer_is_left_and_not_ended(
    silent_ray: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from evomerge.workers import ray_session

    forgotten: list[object] = []
    monkeypatch.setattr(ray_session.atexit, "unregister", forgotten.append)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ray_session.RaySession(workers=2, address="10.0.0.1:6379").close()
    assert silent_ray.poll() is None
    assert forgotten == [ray_session.ray.shutdown]


def test_workers_are_not_waited_for_once_the_head_is_silent(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evomerge.workers import ray_pool

    def no_answer() -> None:
        raise WorkerError("the head of the Ray session does not answer any more")

    monkeypatch.setattr(ray_pool, "_FIRST_START_S", 0.0)
    monkeypatch.setattr(ray_pool, "_HEAD_S", 0.0)
    monkeypatch.setattr(ray_pool, "nodes", no_answer)
    monkeypatch.setattr(ray_pool.ray, "wait", lambda asked, **_: ([], asked))
    actor = SimpleNamespace(ready=SimpleNamespace(remote=object))
    crew = ray_pool.RayCrew(lambda: actor, workers=2, gpus=0.0, checked=lambda check: None)
    with pytest.raises(WorkerError, match="does not answer any more"):
        crew.start(lambda line: None)

"""What a record refuses, what it survives, and who can read it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import wsgiref.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
import yaml
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.errors import StorageError
from evomerge.evaluate.candidate import (
    Candidate,
    CandidateKey,
    Evaluation,
    Failed,
    Observer,
    Scored,
    TaskItems,
    ignore,
)
from evomerge.recipe import Recipe, RecipeModel
from evomerge.search.ledger import Ledger
from evomerge.search.loop import run_search
from evomerge.search.results.selection import read_selection
from evomerge.search.selection.winner import select_winner
from evomerge.study import Parameter, create_study, read_study, resume_study, write_whole
from evomerge.workers.preparation.fingerprints import fingerprints_of
from evomerge.workers.preparation.preparation import prepare
from tests.processes import finish
from tests.search.jobs import TASKS, LightPool, make_job, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def candidate(place: int, genome: tuple[float, ...] = (0.1, 1 / 3)) -> Candidate:
    recipe = Recipe(
        merge_method="linear",
        models=(RecipeModel(model="somewhere", parameters={"weight": 1.0}),),
        out_dtype="float32",
    )
    return Candidate(
        key=CandidateKey(1, place),
        kind="genome",
        label=f"number {place}",
        recipe=recipe,
        items={"sums_choice": (0, 2, 5)},
        genome=genome,
    )


SCORED = Scored(
    tasks={"sums_choice": TaskItems(ids=(0, 2, 5), metrics={"acc": (1.0, 0.1 + 0.2, 0.0)})}
)


def test_a_trial_reads_back_to_the_last_bit(tmp_path: Path, models: Path) -> None:
    job = make_job(models)
    with create_study(tmp_path / "run", job) as study:
        study.record(
            candidate(0),
            SCORED,
            score=0.1 + 0.2,
            parameters={"weight": Parameter(value=0.15, low=0.0, high=1.5)},
        )
        study.record(candidate(1), Failed(reason="logits are not finite"), score=None)
        written = study.trials
    with read_study(tmp_path / "run") as study:
        assert study.trials == written
        assert study.outcome_of(CandidateKey(1, 0)) == SCORED
        assert study.trial(CandidateKey(1, 0)).item_count == 3
        assert study.trial(CandidateKey(1, 1)).failure == "logits are not finite"
        assert study.job == job


def test_optuna_opens_the_record_as_it_is(tmp_path: Path, models: Path) -> None:
    with create_study(tmp_path / "run", make_job(models)) as study:
        study.record(
            candidate(0),
            SCORED,
            score=0.5,
            parameters={"weight": Parameter(value=0.15, low=0.0, high=1.5)},
        )
    url = f"sqlite:///{tmp_path / 'run' / 'study.db'}"
    opened = optuna.load_study(study_name="sums", storage=url)
    assert opened.best_value == 0.5
    assert opened.best_params == {"weight": 0.15}


def test_optuna_dashboard_serves_the_record(tmp_path: Path, models: Path) -> None:
    with create_study(tmp_path / "run", make_job(models)) as study:
        study.record(candidate(0), SCORED, score=0.5)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'run' / 'study.db'}")
    environ: dict[str, Any] = {"PATH_INFO": "/api/studies"}
    wsgiref.util.setup_testing_defaults(environ)
    said: list[str] = []
    body = b"".join(optuna_dashboard.wsgi(storage)(environ, lambda line, *_: said.append(line)))
    assert said == ["200 OK"]
    assert b'"sums"' in body


def run_light(run_dir: Path, models: Path, tasks: Path) -> None:
    job = make_job(models)
    evaluation = job.evaluation.model_copy(update={"task_folders": (str(tasks),)})
    preparation = prepare(job.model_copy(update={"evaluation": evaluation}))
    with create_study(run_dir, preparation.job) as study, LightPool() as pool:
        study.note("facts", fingerprints_of(preparation))
        ledger = Ledger(preparation=preparation, study=study, pool=pool)
        selection = select_winner(ledger, run_search(ledger))
        assert read_selection(study.noted("selection")) == selection


@pytest.fixture
def finished(tmp_path: Path, models: Path) -> Path:
    """A finished search with task files and sources of its own."""
    shutil.copytree(models, tmp_path / "models")
    shutil.copytree(TASKS, tmp_path / "tasks")
    run_light(tmp_path / "run", tmp_path / "models", tmp_path / "tasks")
    return tmp_path


def refusal(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    [line] = result.stderr.strip().splitlines()
    return line


def test_a_changed_task_file_is_refused_at_resume(finished: Path) -> None:
    task = finished / "tasks" / "sums_said.yaml"
    task.write_text(task.read_text().replace("max_gen_toks: 2", "max_gen_toks: 3"))
    before = (finished / "run" / "study.db").read_bytes()
    line = refusal(["resume", str(finished / "run")])
    assert "sums_said" in line
    assert "changed since the search began" in line
    assert (finished / "run" / "study.db").read_bytes() == before


def test_a_changed_source_is_refused_at_resume(finished: Path) -> None:
    weights = finished / "models" / "second" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    line = refusal(["resume", str(finished / "run")])
    assert "second/model.safetensors" in line


def test_a_changed_job_is_refused_at_resume(finished: Path) -> None:
    line = refusal(["resume", str(finished / "run"), "--set", "aggregate=min"])
    assert "aggregate" in line


def fill(run_dir: Path, room: int, said: Path) -> None:
    study = resume_study(run_dir)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    place = 1
    try:
        while place < 2000:
            study.record(candidate(place, genome=(0.5,) * 200), SCORED, score=0.5)
            place += 1
    except StorageError as error:
        said.write_text(f"{place}\n{error}")


def test_a_full_disk_stops_the_search_and_loses_nothing(tmp_path: Path, models: Path) -> None:
    """The limit on file sizes makes the kernel refuse writes as a full disk does."""
    run_dir = tmp_path / "run"
    with create_study(run_dir, make_job(models)) as study:
        study.record(candidate(0), SCORED, score=0.5)
    room = (run_dir / "study.db").stat().st_size + 40_000
    finish(fill, run_dir, room, tmp_path / "said")
    place, line = (tmp_path / "said").read_text().splitlines()
    assert "make room" in line
    assert f"evomerge resume {run_dir}" in line
    with resume_study(run_dir) as study:
        assert [trial.key.place for trial in study.trials] == list(range(int(place)))
        assert study.outcome_of(CandidateKey(1, 0)) == SCORED
        study.record(candidate(int(place)), SCORED, score=0.5)


def test_a_job_file_reads_back_as_it_was_written(tmp_path: Path, models: Path) -> None:
    job = make_job(models)
    assert yaml.safe_load(job.to_yaml())["name"] == "sums"
    with create_study(tmp_path / "run", job):
        pass
    with read_study(tmp_path / "run") as study:
        assert study.job == job


class LatePool(LightPool):
    """Answers in the opposite order, as workers may that finish when they like."""

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        yield from reversed(list(super().evaluate(candidates, observe)))


def test_the_order_of_arrival_changes_nothing(tmp_path: Path, models: Path) -> None:
    preparation = prepare(make_job(models))
    records = []
    for pool in (LightPool(), LatePool()):
        with create_study(tmp_path / type(pool).__name__, preparation.job) as study:
            ledger = Ledger(preparation=preparation, study=study, pool=pool)
            selection = select_winner(ledger, run_search(ledger))
            records.append((study.trials, selection))
    assert records[0] == records[1]


def test_a_candidate_that_fails_is_a_value_and_the_search_goes_on(
    tmp_path: Path, models: Path
) -> None:
    class FaultyPool(LightPool):
        def evaluate(
            self, candidates: Sequence[Candidate], observe: Observer = ignore
        ) -> Iterator[tuple[Candidate, Evaluation]]:
            for candidate, outcome in super().evaluate(candidates, observe):
                fails = candidate.kind == "genome" and candidate.key.place != 1
                yield candidate, Failed(reason="logits are not finite") if fails else outcome

    preparation = prepare(make_job(models))
    with create_study(tmp_path / "run", preparation.job) as study:
        ledger = Ledger(preparation=preparation, study=study, pool=FaultyPool())
        selection = select_winner(ledger, run_search(ledger))
        failed = [trial for trial in study.trials_of("genome") if trial.failure]
        assert len(failed) == 9
        assert {trial.score for trial in failed} == {None}
        assert selection.winner not in {trial.label for trial in failed}


def test_a_file_that_two_write_at_once_is_one_of_theirs(tmp_path: Path) -> None:
    def write_first(part: Path) -> None:
        part.write_text("first")
        write_whole(tmp_path / "report.html", lambda other: other.write_text("second"))

    write_whole(tmp_path / "report.html", write_first)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "first"


def test_what_killed_writers_left_of_a_file_is_removed_and_what_is_being_written_is_kept(
    tmp_path: Path,
) -> None:
    for name in (".page.html.partial", ".page.html.0123.partial", ".other.html.0123.partial"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".page.html.4567.partial").touch()
    write_whole(tmp_path / "page.html", lambda part: part.write_text("page"))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".other.html.0123.partial", ".page.html.4567.partial", "page.html"]

"""What opening a record makes, leaves, refuses and never writes."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import evomerge.study.study
import evomerge.study.trial
from evomerge.cli import app
from evomerge.errors import RunError, StorageError
from evomerge.recipe import Recipe
from evomerge.study import create_study, read_study, resume_study
from evomerge.study.reader import SCHEMA, Reader
from evomerge.study.storage import open_engine, open_storage
from tests.study.records import contents_of, files_of, job_of, record_one, write_record


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    [line] = result.stderr.strip().splitlines()
    return line


def edit_job(run_dir: Path, **changes: object) -> None:
    path = run_dir / "job.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def test_a_search_is_not_begun_in_the_folder_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = files_of(tmp_path)
    with pytest.raises(RunError, match="holds a model; give the search another --run-dir"):
        create_study(tmp_path, job_of())
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("name=other", "name"),
        ("storage=sqlite:////tmp/other.db", "storage"),
        ("aggregate=min", "aggregate"),
        ("optimizer.seed=5", "optimizer"),
        ("models.sources=[/models/first]", "models"),
        ("objectives=[{task: sums_choice, metric: acc}]", "objectives"),
        ("evaluation.finalists=3", "evaluation"),
        ("compute.dtype=float32", "compute.dtype"),
        ("search_space=one_weight_per_model", "search_space"),
        ("report=[sums_said]", "report"),
    ],
)
def test_what_a_search_is_may_not_change_and_a_refusal_changes_no_file(
    tmp_path: Path, override: str, named: str
) -> None:
    run_dir = write_record(tmp_path / "run")
    before = files_of(run_dir)
    budget = ["--set", "budget.candidates=99"]
    line = refusal("resume", str(run_dir), "--set", override, *budget)
    assert named in line
    assert {name: file for name, file in files_of(run_dir).items() if name != "run.lock"} == {
        name: file for name, file in before.items() if name != "run.lock"
    }


@pytest.mark.parametrize("command", ["resume", "status", "report"])
@pytest.mark.parametrize("changes", [{"name": "other"}, {"aggregate": "min"}])
def test_what_a_search_is_may_not_be_edited(
    tmp_path: Path, command: str, changes: dict[str, object]
) -> None:
    run_dir = write_record(tmp_path / "run")
    edit_job(run_dir, **changes)
    before = (run_dir / "study.db").read_bytes()
    assert next(iter(changes)) in refusal(command, str(run_dir))
    assert (run_dir / "study.db").read_bytes() == before
    assert len(list((run_dir / "items").iterdir())) == 2


def test_the_budget_may_be_edited(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    edit_job(run_dir, budget={"candidates": 99})
    with resume_study(run_dir) as study:
        assert study.job.budget.candidates == 99


def test_reading_writes_nothing(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "a run? 100% {new} #1")
    before = files_of(run_dir)
    folders = {path: path.stat().st_mtime_ns for path in (run_dir, run_dir / "items")}
    with read_study(run_dir) as study:
        assert len(study.trials) == 3
        assert study.items_of(study.trials[0].key)
    assert CliRunner().invoke(app, ["status", str(run_dir)]).exit_code == 0
    assert files_of(run_dir) == before
    assert {path: path.stat().st_mtime_ns for path in folders} == folders


@pytest.fixture
def write_protected() -> Iterator[Path]:
    """The directory of a search that belongs to another user, who lets no one write there."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        run_dir = write_record(Path(folder, "run"))
        for path in (run_dir, *run_dir.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            with _without_rights():
                yield run_dir
        finally:
            run_dir.chmod(0o755)
            (run_dir / "items").chmod(0o755)


@contextlib.contextmanager
def _without_rights() -> Iterator[None]:
    """Nothing keeps root from writing, so for a while this process is nobody."""
    before = os.geteuid()
    if before != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_directory_that_cannot_be_written_is_read(write_protected: Path) -> None:
    with pytest.raises(PermissionError):
        (write_protected / "new").touch()
    with pytest.raises(PermissionError):
        (write_protected / "study.db").open("r+b")
    result = CliRunner().invoke(app, ["status", str(write_protected)])
    assert result.exit_code == 0, result.output
    with read_study(write_protected) as study:
        assert len(study.trials) == 3
        assert study.items_of(study.trials[0].key)
    with pytest.raises(StorageError, match="let this user write there"):
        resume_study(write_protected)


def test_a_directory_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, write: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    run_dir = write_record(tmp_path / "run")
    with resume_study(run_dir) as study:
        monkeypatch.setattr(evomerge.study.study, "write_whole", refuse)
        with pytest.raises(StorageError) as raised:
            study.keep_job()
    assert "let this user write there" in str(raised.value)
    assert "make room" not in str(raised.value)


def test_a_record_reads_by_as_many_queries_whatever_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    rows = Reader._rows
    monkeypatch.setattr(
        Reader, "_rows", lambda self, query: asked.append(query) or rows(self, query)
    )
    parsed: list[str] = []
    read_recipe = evomerge.study.trial.read_recipe

    def parse(text: str, *, where: str) -> Recipe:
        parsed.append(where)
        return read_recipe(text, where=where)

    monkeypatch.setattr(evomerge.study.trial, "read_recipe", parse)
    counts = []
    for trials in (2, 9):
        run_dir = tmp_path / str(trials)
        with create_study(run_dir, job_of()) as study:
            for place in range(trials):
                record_one(study, place)
            expected = study.trials
        asked.clear()
        with read_study(run_dir) as study:
            assert not parsed
            assert CliRunner().invoke(app, ["status", str(run_dir)]).exit_code == 0
            assert not parsed
            counts.append(len(asked))
            assert study.trials == expected
            assert [trial.parameters for trial in study.trials] == [t.parameters for t in expected]
            assert len(parsed) == trials
            parsed.clear()
    assert counts[0] == counts[1]


def test_the_tables_are_those_that_optuna_writes(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'new.db'}", run_dir=tmp_path)
    assert storage.get_head_version() == SCHEMA
    Reader(open_engine(storage.url, run_dir=tmp_path), tmp_path).check_schema()


@pytest.mark.parametrize("room", [0, 100, 30_000, 100_000])
def test_a_disk_full_at_the_beginning_leaves_nothing(tmp_path: Path, room: int) -> None:
    """The limit on file sizes makes the kernel refuse writes as a full disk does."""
    run_dir = tmp_path / "runs" / "sums"
    job = job_of()
    facts = {"job": job.fingerprint(), "sources": {str(n): "0" * 64 for n in range(2000)}}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(StorageError) as raised:
            create_study(run_dir, job, facts=facts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "nothing was started" in str(raised.value)
    assert "make room" in str(raised.value)
    assert "kept" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert "no search here" in refusal("resume", str(run_dir))
    with create_study(run_dir, job, facts=facts) as study:
        assert study.noted("facts") == facts


def test_a_beginning_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    create_study(run_dir, job_of(mode="pareto", optimizer={"seed": 3, "population": 5})).close()
    (run_dir / "job.yaml").unlink()  # which is written last
    assert "no search here" in refusal("resume", str(run_dir))
    with create_study(run_dir, job_of()) as study:
        record_one(study, 0)
    with read_study(run_dir) as study:
        assert len(study.trials) == 1


def test_a_record_without_its_job_is_not_written_over(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    (run_dir / "job.yaml").unlink()
    before = files_of(run_dir)
    with pytest.raises(RunError, match=r"job\.yaml is missing"):
        create_study(run_dir, job_of())
    assert {n: f for n, f in files_of(run_dir).items() if n != "run.lock"} == {
        n: f for n, f in before.items() if n != "run.lock"
    }


def test_a_search_that_another_process_begins_keeps_its_lock(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with create_study(run_dir, job_of()):
        (run_dir / "job.yaml").rename(run_dir / "kept")
        with pytest.raises(RunError, match="another process"):
            create_study(run_dir, job_of())
        assert (run_dir / "run.lock").exists()
        (run_dir / "kept").rename(run_dir / "job.yaml")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    job = job_of()
    with create_study(tmp_path / "run", job, facts={"job": job.fingerprint()}) as study:
        record_one(study, 0)
        study.note("estimates", {"headline": "found", "pairs": [(1, 2)], 3: None})
        written = contents_of(study)
    with read_study(tmp_path / "run") as study:
        assert contents_of(study) == written
        assert study.job == job

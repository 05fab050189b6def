"""A record in PostgreSQL: who may write it, what an outage does to it, and what is never shown."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.errors import RunError, StorageError
from evomerge.evaluate.candidate import Candidate, CandidateKey, Failed
from evomerge.recipe import Recipe, RecipeModel
from evomerge.study import create_study, read_study, resume_study
from tests.postgres import PASSWORD, USER, Server, serve
from tests.search.jobs import job_document, make_job, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return server.make(re.sub(r"\W", "_", request.node.name)[:60])


def candidate(place: int) -> Candidate:
    recipe = Recipe(
        merge_method="linear",
        models=(RecipeModel(model="somewhere", parameters={"weight": 1.0}),),
        out_dtype="float32",
    )
    key = CandidateKey(1, place)
    return Candidate(key=key, kind="genome", label=str(key), recipe=recipe, items={}, genome=(0.5,))


FAILED = Failed(reason="logits are not finite")


def terminate_connections(server: Server, url: str) -> None:
    with server.connect("postgres") as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
            [url.rpartition("/")[2]],
        )


def test_a_record_reads_back_and_is_gone_on_with(tmp_path: Path, models: Path, url: str) -> None:
    with create_study(tmp_path / "run", make_job(models, storage=url)) as study:
        study.record(candidate(0), FAILED, score=None)
        study.note("facts", {"job": {}})
    with resume_study(tmp_path / "run") as study:
        study.record(candidate(1), FAILED, score=None)
        written = study.trials
    with read_study(tmp_path / "run") as study:
        assert study.trials == written
        assert study.noted("facts") == {"job": {}}
    assert not (tmp_path / "run" / "study.db").exists()


def test_a_second_search_of_the_name_is_refused_while_the_first_runs_and_after(
    tmp_path: Path, models: Path, url: str
) -> None:
    job = make_job(models, storage=url)
    with create_study(tmp_path / "runs" / "first", job) as study:
        with pytest.raises(RunError, match=r"another process writes the study sums .*runs/first"):
            create_study(tmp_path / "others" / "second", job)
        study.note("facts", {"job": {}})
    with pytest.raises(RunError, match="holds a study named sums already"):
        create_study(tmp_path / "others" / "second", job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    other = job.model_copy(update={"name": "other"})
    create_study(tmp_path / "others" / "second", other).close()


def test_a_copied_run_is_not_gone_on_with_beside_the_first(
    tmp_path: Path, models: Path, url: str
) -> None:
    with create_study(tmp_path / "first", make_job(models, storage=url)) as study:
        study.record(candidate(0), FAILED, score=None)
        shutil.copytree(tmp_path / "first", tmp_path / "copy")
        with pytest.raises(RunError, match="another process writes the study sums"):
            resume_study(tmp_path / "copy")
        with read_study(tmp_path / "copy") as copy:
            assert copy.trials == study.trials
    with resume_study(tmp_path / "copy") as copy:
        copy.record(candidate(1), FAILED, score=None)


def test_searches_that_begin_together_in_an_empty_database_all_begin(
    tmp_path: Path, models: Path, url: str
) -> None:
    def begin(number: int) -> int:
        job = make_job(models, storage=url).model_copy(update={"name": f"job{number}"})
        with create_study(tmp_path / job.name, job) as study:
            return len(study.trials)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(begin, range(4))) == [0] * 4


def test_connections_that_end_in_the_middle_go_unnoticed(
    tmp_path: Path, models: Path, server: Server, url: str
) -> None:
    with create_study(tmp_path / "run", make_job(models, storage=url)) as study:
        study.record(candidate(0), FAILED, score=None)
        terminate_connections(server, url)
        study.record(candidate(1), FAILED, score=None)
        terminate_connections(server, url)
        study.note("facts", {"job": {}})
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        with pytest.raises(RunError, match="another process writes"):
            resume_study(tmp_path / "copy")
    with read_study(tmp_path / "run") as study:
        assert len(study.trials) == 2


def test_a_writer_that_lost_the_study_to_another_writes_no_more(
    tmp_path: Path, models: Path, server: Server, url: str
) -> None:
    with create_study(tmp_path / "run", make_job(models, storage=url)) as study:
        study.record(candidate(0), FAILED, score=None)
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        terminate_connections(server, url)
        with resume_study(tmp_path / "copy") as other:
            other.record(candidate(1), FAILED, score=None)
            with pytest.raises(RunError, match="another process writes"):
                study.record(candidate(1), FAILED, score=None)
        for _ in range(2):
            with pytest.raises(RunError, match="another process wrote to this search"):
                study.record(candidate(1), FAILED, score=None)
    with read_study(tmp_path / "run") as study:
        assert len(study.trials) == 2


def test_a_server_that_is_gone_ends_the_search_in_a_line_that_says_how_to_go_on(
    tmp_path: Path, models: Path, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.study.postgres._CONNECT_TRIES", 1)
    with create_study(tmp_path / "run", make_job(models, storage=url)) as study:
        study.record(candidate(0), FAILED, score=None)
        server.stop()
        try:
            with pytest.raises(StorageError) as raised:
                study.record(candidate(1), FAILED, score=None)
            with pytest.raises(StorageError, match=r"gives no access .*refused"):
                read_study(tmp_path / "run")
        finally:
            server.start()
    assert f"evomerge resume {tmp_path / 'run'}" in str(raised.value)
    assert "make room" not in str(raised.value)
    with resume_study(tmp_path / "run") as study:
        study.record(candidate(1), FAILED, score=None)


def test_a_wrong_password_and_a_database_that_is_missing_are_told_and_leave_nothing(
    tmp_path: Path, models: Path, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=r'"nowhere" does not exist'):
        create_study(tmp_path / "run", make_job(models, storage=server.url("nowhere")))
    monkeypatch.setenv("PGPASSWORD", "not this one")
    with pytest.raises(StorageError, match="password authentication failed") as raised:
        create_study(tmp_path / "run", make_job(models, storage=url))
    assert "make room" not in str(raised.value)
    assert "not this one" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_reading_makes_nothing_in_a_database(
    tmp_path: Path, models: Path, server: Server, url: str
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "job.yaml").write_text(make_job(models, storage=url).to_yaml())
    with pytest.raises(RunError, match="holds no search"):
        read_study(run_dir)
    with server.connect(url.rpartition("/")[2]) as connection:
        assert (
            connection.execute("select * from pg_tables where schemaname = 'public'").fetchall()
            == []
        )
    create_study(
        tmp_path / "other", make_job(models, storage=url).model_copy(update={"name": "other"})
    ).close()
    with pytest.raises(RunError, match="nothing is recorded"):
        read_study(run_dir)
    with server.connect(url.rpartition("/")[2]) as connection:
        names = connection.execute("select study_name from studies").fetchall()
    assert ("sums",) not in names


def test_a_beginning_that_is_taken_back_leaves_nothing(
    tmp_path: Path, models: Path, server: Server, url: str
) -> None:
    job = make_job(models, storage=url)
    create_study(tmp_path / "runs" / "sums", job).discard()
    assert list(tmp_path.iterdir()) == []
    with create_study(tmp_path / "again", job) as study:
        study.record(candidate(0), FAILED, score=None)


@pytest.mark.parametrize(
    "place",
    [
        f"postgresql://{USER}:s3cret@127.0.0.1/database",
        "postgresql://me:s3c@ret/of@127.0.0.1/database",
        "postgresql+psycopg://127.0.0.1/database?user=me&password=s3cret",
        "postgresql://127.0.0.1/database?sslpassword=s3cret",
        "mysql://me:s3cret@127.0.0.1/database",
        "sqlite:////tmp/s3cret?password=s3cret",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(
    tmp_path: Path, models: Path, place: str
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job_document(models, storage=place)))
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(job_document(models)))
    for given in ([str(file)], [str(plain), "--set", f"storage={place}"]):
        result = CliRunner().invoke(app, ["search", *given, "--run-dir", str(tmp_path / "run")])
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert "storage:" in result.stderr
        if "postgres" in place:
            assert "PGPASSWORD" in result.stderr
            assert "s3c" not in result.stderr
            assert "ret" not in result.stderr.replace("secret", "")
        assert not (tmp_path / "run").exists()


def test_no_other_database_is_a_place_for_a_record(tmp_path: Path, models: Path) -> None:
    run_dir = tmp_path / "run"
    create_study(run_dir, make_job(models)).close()
    elsewhere = tmp_path / "elsewhere.db"
    document = yaml.safe_load((run_dir / "job.yaml").read_text())
    (run_dir / "job.yaml").write_text(
        yaml.safe_dump({**document, "storage": f"sqlite:///{elsewhere}"})
    )
    for command in (["status"], ["report"], ["resume"], ["export", "--out", str(tmp_path / "out")]):
        result = CliRunner().invoke(app, [command[0], str(run_dir), *command[1:]])
        assert result.exit_code == 2
        assert "storage: sqlite" in result.stderr
        assert "PostgreSQL" in result.stderr or "postgresql://" in result.stderr
    assert not elsewhere.exists()

"""`evomerge --server URL`: every command has the words and the lines of the one here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

import evomerge
from evomerge.check import CheckReport
from evomerge.check.memory import Memory
from evomerge.cli import app as local
from evomerge.cli import remote as commands
from evomerge.evaluate import Interval, ScoreSummary
from evomerge.grid import GridOutcome
from evomerge.search import Forecast
from evomerge.service.store.jobs import Job
from tests.service.client.reach import server_of
from tests.service.http.house import JOB, MODELS, URL, House

GRID: dict[str, Any] = {
    "name": "methods",
    "models": JOB["models"],
    "held_in": [
        {"task": "kana_arithmetic_en", "metric": "exact_match", "expert": "arithmetic"},
        {"task": "kana_counting_ja", "metric": "exact_match", "expert": "counting"},
    ],
    "methods": ["linear"],
}

QUEUE = (
    *("--name", "mine", "--priority", "3", "--not-before", "2040-01-31T22:00+01:00"),
    *("--max-duration", "90.5", "--retries", "1"),
)

RECIPE = {
    "merge_method": "linear",
    "models": [{"model": "base", "parameters": {"weight": 1.0}}],
}


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(JOB))
    return str(file)


def made(result: Any, house: House) -> dict[str, Any]:
    """The job that a command with --detach submitted."""
    assert result.exit_code == 0, result.output
    facts: dict[str, Any] = house.get(f"/jobs/{result.stdout.strip()}").json()
    return facts


def is_queued_as_asked(facts: dict[str, Any]) -> bool:
    start = datetime.fromisoformat(facts["not_before"])
    return (
        facts["name"],
        facts["priority"],
        start,
        facts["max_duration_s"],
        facts["retries_left"],
    ) == ("mine", 3, datetime(2040, 1, 31, 21, tzinfo=UTC), 90.5, 1)


def test_every_command_here_that_a_server_can_do_is_one_of_its_commands() -> None:
    here = set(get_command(local).commands)  # type: ignore[attr-defined]
    there = set(get_command(commands.remote).commands)  # type: ignore[attr-defined]
    # No kind of job merges a recipe; the rest is for the machine that it is run on.
    assert here - there == {"merge", "init", "serve", "token", "backup", "repair"}


@pytest.mark.parametrize(
    "name", ["check", "search", "grid", "evaluate", "calibrate", "answers", "export", "import"]
)
def test_options_have_the_words_of_the_command_here(name: str) -> None:
    """What a server lacks is about folders and machines, or who may run code there."""

    def options(group: Any) -> dict[str, tuple[Any, ...]]:
        command = get_command(group).commands[name]  # type: ignore[attr-defined]
        return {
            option: (each.help, each.default, each.metavar)
            for each in command.params
            for option in each.opts
            if option.startswith("-")
        }

    here, there = options(local), options(commands.remote)
    of_machines = {"--ray-address", "--run-dir", "--trust-code"}
    assert set(here) - set(there) <= of_machines
    shared = set(here) & set(there) - {"--out", "--text", "--trial", "--point", "--name"}
    assert {option: there[option] for option in shared} == {o: here[o] for o in shared}


# Submitting: what is asked for arrives.


def test_a_search_has_the_settings_of_the_queue(house: House, run: Any, job_file: str) -> None:
    assert is_queued_as_asked(made(run("search", job_file, "--detach", *QUEUE), house))
    plain = made(run("search", job_file, "--detach"), house)
    assert (plain["priority"], plain["not_before"], plain["retries_left"]) == (0, None, 3)
    here = made(run("search", job_file, "--detach", "--not-before", "2040-01-31T22:00"), house)
    wanted = datetime(2040, 1, 31, 22).astimezone()
    assert datetime.fromisoformat(here["not_before"]) == wanted
    wrong = run("search", job_file, "--not-before", "tomorrow")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "--not-before: tomorrow: not a time; write it as" in wrong.stderr
    many = run("search", job_file, "--retries", "200")
    assert many.exit_code == 2
    assert "retries: " in many.stderr


def test_the_other_kinds_are_submitted(
    house: House, run: Any, job_file: str, tmp_path: Path
) -> None:
    options = ("--set", "budget.candidates=5", "--within", "0.1", "--no-timing", "--detach")
    check = made(run("check", job_file, *options, *QUEUE), house)
    assert is_queued_as_asked(check)
    assert (check["kind"], check["request"]["within"]) == ("check", 0.1)
    assert check["request"]["timing"] is False
    assert check["request"]["job"]["budget"]["candidates"] == 5

    grid_file = tmp_path / "grid.yaml"
    grid_file.write_text(yaml.safe_dump(GRID))
    grid = made(run("grid", str(grid_file), "--set", "seeds=[4]", "--detach", *QUEUE), house)
    assert is_queued_as_asked(grid)
    assert (grid["kind"], grid["request"]["seeds"]) == ("grid", [4])

    scored = ("evaluate", "counting", job_file, "--split", "search", "--detach")
    alone = made(run(*scored, *QUEUE), house)
    assert is_queued_as_asked(alone)
    assert alone["kind"] == "evaluation"
    assert alone["request"]["model"].endswith("/counting")
    assert alone["request"]["split"] == "search"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    merged = made(run("evaluate", str(recipe), job_file, "--detach"), house)
    assert merged["request"]["model"] is None
    assert merged["request"]["recipe"]["merge_method"] == "linear"

    uploads = house.settings.uploads(house.projects["default"])
    uploads.mkdir(parents=True)
    (uploads / "text.txt").write_text("one two")
    statistics = ("--text", "text.txt", "--inputs", "--tokens", "16", "--dtype", "bfloat16")
    calibration = made(run("calibrate", "base", *statistics, "--detach", *QUEUE), house)
    assert is_queued_as_asked(calibration)
    asked = calibration["request"]
    assert (asked["fisher"], asked["inputs"], asked["tokens"]) == (False, True, 16)
    assert asked["dtype"] == "bfloat16"
    refused = run("calibrate", "base", *statistics, "--detach", "--out", str(tmp_path / "out"))
    assert "--out: with --detach nothing is downloaded" in refused.stderr


def test_python_submits_the_other_kinds_with_the_arguments_of_here(house: House) -> None:
    with server_of(house) as server:
        check = server.check(JOB, set={"budget.candidates": 5}, within=0.1, timing=False)
        assert check.facts["request"]["within"] == 0.1
        assert server.grid(GRID, set=["seeds=[4]"]).facts["request"]["seeds"] == [4]
        scored = server.evaluate("counting", JOB, split="validation", name="counting", retries=0)
        assert (scored.facts["name"], scored.facts["retries_left"]) == ("counting", 0)
        moment = datetime(2040, 1, 1, tzinfo=UTC)
        late = server.search(JOB, not_before=moment, max_duration_s=5.0, key="k1")
        assert datetime.fromisoformat(late.facts["not_before"]) == moment
        assert server.search(JOB, not_before=moment, max_duration_s=5.0, key="k1").id == late.id
        with pytest.raises(evomerge.InputError, match=r"not_before: .*no time zone"):
            server.search(JOB, not_before=datetime(2040, 1, 1))
        accepted = server.validate("search", {"job": JOB})
        assert accepted["name"] == "kana"


# Results: the lines of the command here.


def shown(house: House, run: Any, job: Job, result: Any, *arguments: str) -> str:
    house.succeed(job.id, result)
    ended = run("watch", job.id, *arguments)
    assert ended.exit_code == 0, ended.output
    return str(ended.stdout)


CHECKED = CheckReport(
    job="kana",
    models=(),
    goals=(),
    combined="mean",
    tasks=(),
    forecast=Forecast(stages=(), phases=()),
    within=0.05,
    items_within=385,
    timing=None,
    hours=None,
    memory=Memory(
        model_bytes=1,
        live_bytes=1,
        merge_bytes=1,
        files_bytes=1,
        cache_bytes=1,
        prefix_bytes=0,
        device="cpu",
        workers=1,
        device_bytes=10,
        free_bytes=5,
    ),
    notes=("a note",),
)
GRIDDED = GridOutcome(
    name="methods",
    split="test",
    items={"kana_arithmetic_en": 10},
    held_in={"kana_arithmetic_en/exact_match": "arithmetic"},
    held_out=(),
    models=(),
    rows=(),
    notes=("what is left out",),
)
SCORES = ScoreSummary(
    label="/srv/models/counting",
    role="model",
    score=Interval(value=0.5, low=0.4, high=0.6),
    tasks={"t": {"acc": Interval(value=0.5, low=0.4, high=0.6)}},
)


def test_a_check_is_shown_as_here(house: House, run: Any) -> None:
    job = house.job("check", request={"job": JOB, "within": 0.05, "timing": False})
    house.tell(job.id, [{"event": "note", "text": "memory is short"}])
    result = {"report": CHECKED.to_json()}
    assert shown(house, run, job, result).splitlines() == CHECKED.lines()
    assert json.loads(shown(house, run, job, result, "--json")) == json.loads(
        json.dumps(CHECKED.to_json())
    )
    assert "note: memory is short" in run("watch", job.id).stderr


def test_a_grid_is_shown_as_here(house: House, run: Any) -> None:
    from evomerge.grid import grid_lines

    job = house.job("grid", request=GRID)
    text = shown(house, run, job, GRIDDED.to_json())
    assert text.splitlines() == grid_lines(GRIDDED)
    assert json.loads(shown(house, run, job, GRIDDED.to_json(), "--json"))["name"] == "methods"


def test_an_evaluation_is_shown_as_here(house: House, run: Any) -> None:
    job = house.job("evaluation", request={"job": JOB, "model": "counting", "split": "search"})
    text = shown(house, run, job, {"scores": SCORES.to_json()})
    head = "counting: all search items; in brackets 95% intervals"
    assert text.splitlines() == [head, *SCORES.lines()]


def test_a_calibration_says_how_a_job_names_it_and_is_downloaded(
    house: House, run: Any, tmp_path: Path
) -> None:
    job = house.job("calibration", request={})
    place = house.settings.export_dir(job.id)
    place.mkdir(parents=True)
    (place / "base.safetensors").write_bytes(b"12")
    written = {
        "path": "base.safetensors",
        "kind": "fisher",
        "model": "base",
        "settings": "2 x 16 tokens",
        "size_bytes": 2_000_000,
        "computed": True,
    }
    assert shown(house, run, job, {"statistics": [written], "files": []}).splitlines() == [
        "base.safetensors: fisher of base, 2 x 16 tokens, 2.0 MB, computed",
        f"statistics: job:{job.id}",
    ]
    out = tmp_path / "statistics"
    assert run("download", job.id, "--out", str(out)).stdout == f"downloaded: {out}\n"
    assert (out / "base.safetensors").read_bytes() == b"12"
    again = run("download", job.id, "--out", str(out))
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_a_search_ends_with_all_the_lines_of_one_here(house: House, run: Any) -> None:
    job = house.searched()
    here = evomerge.open_run(house.settings.run_dir(job.id))
    task, metrics = next(iter(here.tested[0].tasks.items()))
    metric = next(iter(metrics))
    row = {"task": task, "metric": metric, "higher_is_better": False}
    house.succeed(job.id, {"metrics": [row]})
    lines = run("watch", job.id).stdout.splitlines()
    assert lines[: len(here.lines)] == here.lines
    assert lines[len(here.lines)].startswith("Test scores by task")
    assert f"{task}/{metric} (lower is better)" in lines[len(here.lines) + 2]
    assert lines[-1] == f"next: evomerge --server {URL} export {job.id} --out DIR"
    front = house.searched(kind="front")
    [last] = run("watch", front.id).stdout.splitlines()[-1:]
    assert last.startswith(f"next: evomerge --server {URL} export {front.id} --out DIR --point ")


def test_a_status_is_that_of_here_with_the_servers_commands(house: House, run: Any) -> None:
    job = house.searched()
    text = run("status", job.id).stdout
    here = CliRunner().invoke(local, ["status", str(house.settings.run_dir(job.id))]).stdout
    named = here.replace(str(house.settings.run_dir(job.id)), job.id)
    wanted = named.replace("evomerge export", f"evomerge --server {URL} export")
    first, _, rest = text.partition("\n")
    assert first.startswith(f"{job.id}  succeeded  search")
    assert rest == wanted


# Answers, comparisons, copies.


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--lost", "--limit", "2"),
        ("--lost", "--gained"),
        ("--differ", "--task", "kana_said"),
        ("--item", "3"),
        ("--models", "winner,soup", "--split", "test"),
        ("--lost", "--json"),
        ("--models", "winner"),
    ],
)
def test_answers_are_shown_as_here(house: House, run: Any, options: tuple[str, ...]) -> None:
    job = house.answered()
    folder = str(house.settings.run_dir(job.id))
    here = CliRunner().invoke(local, ["answers", folder, *options])
    there = run("answers", job.id, *options)
    assert there.exit_code == here.exit_code == 0
    assert there.stdout == here.stdout


def test_answers_that_are_not_there_are_refused_in_one_line(house: House, run: Any) -> None:
    job = house.answered()
    refused = run("answers", job.id, "--models", "winner", "--lost", "--gained")
    assert refused.exit_code == 2
    assert "evomerge: change: two models are needed, and only winner is shown" in refused.stderr


def test_searches_are_compared(house: House, run: Any) -> None:
    weights, front, waiting = house.searched(), house.searched(kind="front"), house.job()
    ids = (weights.id, front.id, waiting.id)
    here = evomerge.open_run(house.settings.run_dir(weights.id))
    assert here.gain is not None
    said = run("compare", *ids)
    assert said.exit_code == 0, said.output
    rows = {line[:26].strip(): line for line in said.stdout.splitlines()}
    assert here.verdict is not None
    assert here.verdict in rows["verdict"]
    assert f"{here.winner.scores.score.value:.3f} [" in rows["winner, test items"]
    assert f"{here.gain.value:+.3f} [" in rows["gain over the best parent"]
    assert rows["winner, test items"].rstrip().endswith("–")
    documents = json.loads(run("compare", *ids, "--json").stdout)
    assert [each["id"] for each in documents] == list(ids)
    assert documents[0]["generations"] and documents[2]["generations"] == []
    table = server_of(house).compare(ids)
    assert list(table.index) == list(ids)
    assert table.loc[weights.id, "gain"] == here.gain.value
    assert table.loc[weights.id, "candidates"] == here.candidates
    check = house.job("check", request={"job": JOB})
    refused = run("compare", weights.id, check.id)
    assert f"evomerge: {check.id}: a job of kind check; name searches" in refused.stderr


def test_a_job_is_copied_with_changes(house: House, run: Any, job_file: str) -> None:
    first = made(run("search", job_file, "--detach", *QUEUE), house)
    same = made(run("clone", first["id"], "--detach"), house)
    assert (same["parent"], same["request"]) == (first["id"], first["request"])
    assert (same["priority"], same["max_duration_s"], same["retries_left"]) == (3, 90.5, 1)
    options = (
        "--set",
        "budget.candidates=7",
        "--name",
        "more",
        "--priority",
        "0",
        "--retries",
        "2",
    )
    changed = made(run("clone", first["id"], "--detach", "--retries", "2", *options), house)
    assert changed["request"]["budget"]["candidates"] == 7
    assert (changed["name"], changed["priority"], changed["retries_left"]) == ("more", 0, 2)
    copy = server_of(house).job(first["id"]).clone(not_before=None, max_duration_s=None)
    assert (copy.facts["not_before"], copy.facts["max_duration_s"]) == (None, None)
    assert run("clone", first["id"], "--set", "budgett=1").exit_code == 2


def test_a_copy_is_sent_with_a_key(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_of(house)
    first = server.search(JOB)
    sent: list[dict[str, str]] = []
    request = server.connection.request

    def noted(method: str, path: str, **kwargs: Any) -> Any:
        sent.append(kwargs.get("headers", {}))
        return request(method, path, **kwargs)

    monkeypatch.setattr(server.connection, "request", noted)
    first.clone(key="again")
    first.clone()
    first.clone()
    keys = [headers["Idempotency-Key"] for headers in sent]
    assert keys[0] == "again"
    assert len(set(keys)) == 3


def test_a_job_is_deleted_and_restored(house: House, run: Any) -> None:
    job = house.job()
    assert run("delete", job.id).stdout.split()[:2] == [job.id, "cancelled"]
    assert run("list").stdout == ""
    assert run("list", "--deleted").stdout.split()[0] == job.id
    assert run("restore", job.id).stdout.split()[0] == job.id
    assert run("list", "--kind", "search").stdout.split()[0] == job.id
    assert run("list", "--kind", "grid").stdout == ""


# A file of mergekit.


def merge_of(folder: Path, place: str) -> tuple[str, ...]:
    """The command on a merge of the models that are named from `place`."""
    names = [f"{place}{name}" for name in ("arithmetic", "counting")]
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in names]
    file = folder / "my merge.yaml"
    file.write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    task = ("--task", "kana_arithmetic_en:exact_match")
    return ("import", str(file), *task, "--base", f"{place}base", "--candidates", "5")


def test_a_merge_becomes_a_job_that_is_printed_written_or_submitted(
    house: House, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(MODELS)
    asked = merge_of(tmp_path, "")
    printed = run(*asked)
    assert printed.exit_code == 0, printed.output
    job = yaml.safe_load(printed.stdout)
    assert job["models"] == {"base": "base", "sources": ["arithmetic", "counting"]}
    assert (job["name"], job["budget"]) == ("my-merge", {"candidates": 5})
    out = tmp_path / "job.yaml"
    written = run(*asked, "--out", str(out))
    assert written.stdout.splitlines() == [
        f"job: {out}",
        f"next: evomerge --server {URL} check {out}",
    ]
    assert {**yaml.safe_load(out.read_text()), "name": "my-merge"} == job
    assert house.get("/jobs").json()["total"] == 0
    search = made(run(*asked, "--submit", "--detach", "--priority", "2"), house)
    assert (search["kind"], search["name"], search["priority"]) == ("search", "my-merge", 2)
    assert search["request"]["budget"]["candidates"] == 5


def test_a_merge_of_models_that_the_server_does_not_have_is_refused(
    run: Any, tmp_path: Path
) -> None:
    refused = run(*merge_of(tmp_path, "examples/kana/models/"))
    assert refused.exit_code == 2
    assert yaml.safe_load(refused.stdout)["models"]["base"] == "examples/kana/models/base"
    assert "models.base: examples/kana/models/base: not a model" in refused.stderr

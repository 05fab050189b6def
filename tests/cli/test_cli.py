"""The commands as a user runs them, one after another, on a whole small search."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from evomerge.cli import app
from tests.processes import begin, command
from tests.search.jobs import job_document, write_models


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    write_models(folder)
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job_document(folder, report=["sums_choice"])))
    return path


@pytest.fixture(scope="module")
def searched(job: Path) -> tuple[Path, Result]:
    """A finished search and what the command said."""
    run_dir = job.parent / "run"
    return run_dir, run("search", str(job), "--run-dir", str(run_dir))


LARGER = ("--set", "budget.candidates=20")


@pytest.fixture(scope="module")
def whole_run(job: Path) -> tuple[Path, Result]:
    """A search that had the larger budget from its beginning."""
    run_dir = job.parent / "whole"
    return run_dir, run("search", str(job), "--run-dir", str(run_dir), *LARGER)


def test_a_search_says_first_what_was_gained(searched: tuple[Path, Result]) -> None:
    _, result = searched
    headline = result.stdout.splitlines()[0]
    gained = headline.startswith(("Gained", "Not settled"))
    assert gained or headline.startswith("No gain")
    assert result.exit_code == (0 if gained else 3)
    assert "generation 3: 4 scored on 16 items" in result.stderr
    assert "\x1b" not in result.stderr, "no control characters where there is no terminal"


def test_a_search_without_a_terminal_says_what_it_checks_and_how_long_each_phase_takes(
    searched: tuple[Path, Result],
) -> None:
    _, result = searched
    lines = result.stderr.splitlines()
    checks = [line for line in lines if line.startswith("self-check: ")]
    assert len(checks) == 2, "of a model by itself and of a merge"
    assert all("scores as plain transformers does on" in line for line in checks)
    [searching] = [line for line in lines if line.startswith("generation 1:")]
    assert searching.endswith("left, validation and test included")
    for phase in ("validation", "test"):
        begun = next(line for line in lines if line.startswith(f"{phase}: "))
        assert re.match(rf"{phase}: \d+ models on \d+ items each, .* left", begun)


def test_resuming_a_finished_search_says_the_same(searched: tuple[Path, Result]) -> None:
    run_dir, first = searched
    again = run("resume", str(run_dir))
    assert again.stdout == first.stdout
    assert again.exit_code == first.exit_code


def unseen(said: str) -> str:
    """An outcome without what it says of test items that an earlier selection scored models on."""
    assert "The test items were seen before: 1 selection" in said
    lines = [line for line in said.splitlines() if not line.startswith("The test items were seen")]
    return "\n".join(lines).replace("test items that were seen before", "unseen test items") + "\n"


def test_a_finished_search_goes_on_with_a_larger_budget(
    searched: tuple[Path, Result], whole_run: tuple[Path, Result], tmp_path: Path
) -> None:
    whole, expected = whole_run
    parts = shutil.copytree(searched[0], tmp_path / "parts")
    said = run("resume", str(parts), *LARGER).stdout
    assert unseen(said).replace(str(parts), str(whole)) == expected.stdout
    for run_dir in (parts, whole):
        out = tmp_path / f"{run_dir.name} merged"
        assert run("export", str(run_dir), "--out", str(out)).exit_code == 0
        assert ("scored once on test items" in (out / "README.md").read_text()) == (
            run_dir == whole
        )


def test_status_tells_people_and_programs(searched: tuple[Path, Result]) -> None:
    run_dir, _ = searched
    assert "12 of 12 candidates" in run("status", str(run_dir)).stdout
    said = json.loads(run("status", str(run_dir), "--json").stdout)
    assert said["name"] == "sums"


def test_a_winner_is_exported_verified_and_built_again(
    searched: tuple[Path, Result], tmp_path: Path
) -> None:
    run_dir, _ = searched
    exported = run("export", str(run_dir), "--out", str(tmp_path / "merged"), "--verify")
    assert exported.exit_code == 0
    assert "verified: 0 of" in exported.stdout
    recipe = tmp_path / "merged" / "recipe.yaml"
    again = run("merge", str(recipe), "--out", str(tmp_path / "again"))
    assert again.exit_code == 0
    weights = [tmp_path / name / "model.safetensors" for name in ("merged", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_winner_is_exported_as_an_adapter_that_scores_as_the_record_says(
    searched: tuple[Path, Result], tmp_path: Path
) -> None:
    run_dir, _ = searched
    command = ("export", str(run_dir), "--out", str(tmp_path / "adapter"), "--as-adapter")
    refused = run(*command)
    assert refused.exit_code == 2
    assert "give the rank of the nearest adapter, such as --rank 16" in refused.stderr
    exported = run(*command, "--rank", "32", "--verify")  # the full rank of its matrices
    assert exported.exit_code == 0, exported.output
    assert "verified: 0 of" in exported.stdout
    assert "adapter over base: rank 32 in 16 modules" in exported.stdout
    assert "relative error of the change (Frobenius norm)" in exported.stdout
    coarse = tmp_path / "coarse"
    again = run(
        *("merge", str(tmp_path / "adapter" / "recipe.yaml"), "--out", str(coarse)),
        *("--as-adapter", "--rank", "2"),
    )
    assert again.stdout.startswith(f"adapter: {coarse}\nadapter over base: rank 2 in 16 modules")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rank", "3"), "--rank: it is the rank of an adapter; give --as-adapter too"),
        (("--as-adapter", "--rank", "0"), "--rank: 0 is no rank"),
        (("--as-adapter", "--rank", "-2"), "--rank: -2 is no rank"),
        (("--as-adapter", "--rank", "33"), "--rank: 33 is more than 32"),
    ],
)
def test_a_rank_that_no_adapter_has_is_refused_in_one_line(
    searched: tuple[Path, Result], tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    run_dir, _ = searched
    refused = run("export", str(run_dir), "--out", str(tmp_path / "out"), *options)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"evomerge: {words}")
    assert not (tmp_path / "out").exists()


def test_any_candidate_can_be_exported(searched: tuple[Path, Result], tmp_path: Path) -> None:
    run_dir, _ = searched
    out = tmp_path / "merged"
    assert run("export", str(run_dir), "--out", str(out), "--trial", "g0002-i001").exit_code == 0
    assert "g0002-i001" in (out / "README.md").read_text()
    unknown = run("export", str(run_dir), "--out", str(tmp_path / "x"), "--trial", "g0099-i000")
    assert unknown.exit_code == 2


def test_an_exported_model_scores_what_the_record_says(
    searched: tuple[Path, Result], job: Path, tmp_path: Path
) -> None:
    run_dir, result = searched
    run("export", str(run_dir), "--out", str(tmp_path / "merged"))
    folder = run("evaluate", str(tmp_path / "merged"), str(job))
    recipe = run("evaluate", str(tmp_path / "merged" / "recipe.yaml"), str(job), "--json")
    score = json.loads(recipe.stdout)["score"]["value"]
    assert folder.stdout.splitlines()[1].split()[:2] == ["objective", f"{score:.4f}"]
    winner = next(line for line in result.stdout.splitlines() if line.endswith("winner"))
    assert f"{score:.3f}" in winner


def test_a_report_is_one_file(searched: tuple[Path, Result]) -> None:
    run_dir, _ = searched
    assert run("report", str(run_dir)).stdout.strip() == f"report: {run_dir / 'report.html'}"
    assert "<html" in (run_dir / "report.html").read_text()


def test_workers_without_ray_are_refused_before_anything_begins(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    run_dir = tmp_path / "run"
    result = run("search", str(job), "--run-dir", str(run_dir), "--set", "compute.workers=2")
    assert result.exit_code == 2
    assert "evomerge[ray]" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not run_dir.exists()


def test_help_loads_nothing_heavy() -> None:
    """Half a second is for Python, typer and the text; one heavy import would take it all."""
    check = (
        "import sys, evomerge.cli; "
        "print([name for name in ('torch', 'transformers', 'lm_eval', 'optuna', 'pydantic', "
        "'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_interrupted_search_says_how_to_go_on(job: Path, tmp_path: Path) -> None:
    """As a shell begins it: all that a process does as it ends is there, too."""
    run_dir = tmp_path / "run"
    plain = [sys.executable, "-c", "from evomerge.cli import main; main()", "search", str(job)]
    with subprocess.Popen(
        [*plain, "--run-dir", str(run_dir), "--set", "budget.candidates=100000"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A job of a shell that runs in the background is begun with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "generation 1" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        process.wait(timeout=600)
    assert process.returncode == 130, rest
    assert f"evomerge resume {run_dir}" in rest
    assert "Traceback" not in rest


def test_a_search_that_is_to_end_says_how_to_go_on(job: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    larger = ("--set", "budget.candidates=100000")
    with begin(command, "search", str(job), "--run-dir", str(run_dir), *larger) as begun:
        for line in begun.said:
            if "generation 1" in line:
                begun.send(signal.SIGTERM)
                break
        rest = begun.said.read()
        assert begun.wait() == 130, rest
    assert f"evomerge resume {run_dir}" in rest
    assert "Traceback" not in rest


def test_a_larger_budget_is_kept_through_a_kill(
    searched: tuple[Path, Result], whole_run: tuple[Path, Result], tmp_path: Path
) -> None:
    """What `resume --set` asked for holds for the next plain `resume` too."""
    whole, expected = whole_run
    parts = shutil.copytree(searched[0], tmp_path / "parts")
    with begin(command, "resume", str(parts), *LARGER) as begun:
        for line in begun.said:
            if "generation 4" in line:
                begun.send(signal.SIGKILL)
                break
    said = run("resume", str(parts)).stdout
    assert unseen(said).replace(str(parts), str(whole)) == expected.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("compute.device=banana", "compute.device: banana"),
        ("budget.hours=.inf", "budget.hours"),
        ("evaluation.finalists=5000", "evaluation.finalists"),
        ("compute.gpus_per_worker=-1", "compute.gpus_per_worker"),
    ],
)
def test_a_value_that_cannot_work_is_refused_before_anything_begins(
    job: Path, tmp_path: Path, change: str, said: str
) -> None:
    result = run("search", str(job), "--run-dir", str(tmp_path / "run"), "--set", change)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "run").exists()


def test_one_folder_under_two_spellings_is_refused(job: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(job.read_text())
    first = document["models"]["sources"][0]
    document["models"]["sources"] = [first, f"{Path(first).parent}/./{Path(first).name}"]
    twice = tmp_path / "twice.yaml"
    twice.write_text(yaml.safe_dump(document))
    result = run("search", str(twice), "--run-dir", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert "listed twice" in result.stderr

"""What is refused at once: before the libraries that take seconds to import are asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

_HEAVY = ("torch", "transformers", "lm_eval", "datasets", "scipy")
_RUN = """
import json, sys
from typer.testing import CliRunner
from evomerge.cli import app

said = []
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, arguments)
    said.append([result.exit_code, result.output, repr(result.exception)])
loaded = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps([said, loaded]))
"""


def run_all(commands: Sequence[Sequence[str]]) -> tuple[list[list[object]], list[str]]:
    """What each command said, and which of the large libraries they loaded, all together."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(commands), json.dumps(_HEAVY)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    said, loaded = json.loads(done.stdout.splitlines()[-1])
    return said, loaded


def test_help_waits_for_no_library_of_records_or_numbers() -> None:
    code = "import sys, evomerge.cli; evomerge.cli.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "sqlalchemy", "optuna", "pyarrow", *_HEAVY} & set(done.stdout.split())


def test_names_are_listed_and_a_job_is_made_without_large_libraries(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = str(tmp_path / "model")
    commands = {
        ("list", "spaces"): "one_weight_per_model",
        ("list", "methods"): "task_arithmetic",
        ("list", "tasks"): "kana_arithmetic_en",
        ("list", "metrics", "kana_arithmetic_en"): "exact_match",
        (
            *("init", "--out", str(tmp_path / "job.yaml"), "--base", model, "--source", model),
            *("--task", "kana_arithmetic_en"),
        ): "next: evomerge check",
    }
    said, loaded = run_all(list(commands))
    for (command, words), (code, output, _) in zip(commands.items(), said, strict=True):
        assert code == 0, (command, output)
        assert words in str(output), (command, output)
    assert loaded == []


def test_wrong_paths_and_names_are_refused_before_large_libraries_load(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "pipe.yaml").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "pipe.yaml")
    models = {"base": str(tmp_path / "model"), "sources": [str(tmp_path / "model")]}
    good = {
        "name": "early",
        "models": models,
        "objectives": [{"task": "kana_arithmetic_en", "metric": "exact_match"}],
        "budget": {"candidates": 8},
    }
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(good))
    grid = tmp_path / "grid.yaml"
    grid.write_text("name: early\nname: late\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("merge_method: linear\nmodels: [" + "[" * 500)
    tilde = tmp_path / "tilde.yaml"
    tilde.write_text("merge_method: linear\nmodels: [{model: ~nobody/x}]\n")
    nowhere, out = str(tmp_path / "nowhere"), str(tmp_path / "out")
    commands = {
        ("search", nowhere): "cannot be read",
        ("search", str(tmp_path)): "is a folder",
        ("search", str(tmp_path / "pipe.yaml")): "not a regular file",
        ("search", "a" * 5000): "File name too long",
        ("search", str(grid)): "name stands twice, in line 1 and in line 2",
        ("search", str(job), "--set", "models.base=nowhere"): "models.base: nowhere: no such",
        ("search", str(job), "--set", "models.base=~nobody/x"): "models.base: ~nobody/x: no such",
        ("search", str(job), "--set", f"models.base={'a' * 300}"): "no such folder",
        ("search", str(job), "--set", 'models.base="a\\nb"'): "line break",
        ("search", str(job), "--set", "optimizer.algorithm=cma"): "did you mean cma_es?",
        ("search", str(job), "--set", "optimizer.algorithm=nsga2"): "not for mode: single",
        ("search", str(job), "--set", "report=[kana_aritmetic_en]"): "did you mean kana_arithmetic",
        ("search", str(job), "--set", f"budget={'[' * 500}"): "nested more than 64 levels deep",
        ("search", str(job), "--set", f"evaluation.task_folders=[{nowhere}]"): "is no folder",
        ("search", str(job), "--set", "evaluation.draws=informativ"): "did you mean informative?",
        (
            *("search", str(job), "--set", "evaluation.draws=fixed"),
            *("--set", "evaluation.growing=true"),
        ): "growing: with draws: fixed every generation has the same items; leave it out",
        (
            *("search", str(job), "--set", "evaluation.draws=anchors"),
            *("--set", "evaluation.racing=true"),
        ): "racing: anchors give a score only all together, so no candidate can be stopped",
        ("check", nowhere): "cannot be read",
        ("check", str(job), "--within", "0.7"): "within: 0.7 is outside (0, 0.5)",
        ("check", str(job), "--set", "report=[kana_aritmetic_en]"): "did you mean kana_arithmetic",
        ("list", "tasks", "--job", nowhere): "cannot be read",
        ("list", "tasks", "--task-folder", nowhere): "is no folder",
        ("list", "metrics", "kana_aritmetic_en"): "did you mean kana_arithmetic_en",
        ("init", "--out", str(job)): "exists already; name another file with --out",
        ("init", "--out", out): "--base: not given, and there is no terminal to ask on",
        ("grid", nowhere): "cannot be read",
        ("grid", str(grid)): "name stands twice, in line 1 and in line 2",
        ("evaluate", nowhere, nowhere): "cannot be read",
        ("merge", nowhere, "--out", out): "cannot be read",
        ("merge", str(recipe), "--out", out): "nested more than 64 levels deep",
        ("merge", str(tilde), "--out", out): "models.0: ~nobody/x: no such folder",
        ("status", nowhere): "no search here",
        ("status", "a" * 5000): "File name too long",
        ("report", nowhere): "no search here",
        ("resume", nowhere): "no search here",
        ("export", nowhere, "--out", out): "no search here",
    }
    said, loaded = run_all(list(commands))
    for (command, words), (code, output, _) in zip(commands.items(), said, strict=True):
        assert code == 2, (command, output)
        assert words in str(output), (command, output)
        assert len(str(output).splitlines()) == 1, (command, output)
    assert loaded == []

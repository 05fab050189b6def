"""The README and the pages of docs/: what they name is there, and what they say to type runs."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

import evomerge
from evomerge.cli import app
from evomerge.cli.remote import remote
from evomerge.job import OptimizerSpec, load_job, parse_job
from evomerge.merge.methods.registry import METHODS
from evomerge.recipe import read_recipe
from evomerge.space.builder import check_space
from tests.own_parts import installed_example
from tests.search.jobs import job_document, write_models

TOP = Path(evomerge.__file__).parents[1]
DOCS = TOP / "docs"
PAGES = {path.name: path for path in sorted(DOCS.glob("*.md"))}
README = TOP / "README.md"
TEXTS = {
    path.relative_to(TOP).as_posix(): path
    for path in (
        *(TOP / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
        *PAGES.values(),
        *sorted((TOP / "evals").glob("**/README.md")),
        TOP / "examples" / "README.md",
        TOP / "benchmarks" / "RESULTS.md",
    )
}
"""Every text for people, by its path."""


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language; "" for those of commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(path), re.DOTALL | re.MULTILINE)
    return [block for named, block in found if named == language]


def commands() -> Iterator[str]:
    """Every command of evomerge that a page gives in a block of its own."""
    for path in (README, *PAGES.values()):
        for block in blocks(path, ""):
            for line in block.splitlines():
                if line.startswith(".venv/bin/evomerge "):
                    yield line


def jobs() -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Every YAML block that is read as one: its page, its content, its text."""
    for path in (README, *PAGES.values()):
        for block in blocks(path, "yaml"):
            if "!function" not in block:
                yield path.name, yaml.safe_load(block), block


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOP / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        spec.loader.exec_module(module)
    return module


WRITER = load_script("write_docs")


def heading_places(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs both make them."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in headings]
    return {slug.replace(" ", "-") for slug in slugs}


def test_the_readme_is_short() -> None:
    assert README.stat().st_size <= 8192


def test_every_page_is_in_the_navigation_once() -> None:
    def places(node: object) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        elif isinstance(node, Mapping):
            for inner in node.values():
                yield from places(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from places(inner)

    listed = list(places(yaml.safe_load(text_of(TOP / "mkdocs.yml"))["nav"]))
    assert len(listed) == len(set(listed))
    within = {place for place in listed if place in PAGES}
    assert within == set(PAGES)
    assert all((TOP / place).is_file() for place in set(listed) - within)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_what_is_there(name: str) -> None:
    path = TEXTS[name]
    found = re.findall(r"\]\(([^)\s]+)\)", text_of(path))
    for link in found:
        if re.match(r"[a-z]+://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), f"{name}: {link}"
        assert target.is_relative_to(TOP), f"{name}: {link}"
        if anchor:
            assert anchor in heading_places(text_of(target)), f"{name}: {link}"


@pytest.mark.parametrize("part", WRITER.PARTS)
def test_what_is_read_off_the_code_is_fresh(part: str) -> None:
    page = text_of(DOCS / WRITER.PARTS[part][0])
    assert WRITER.written(part, page) == page, "run .venv/bin/python scripts/write_docs.py"


def test_every_method_is_described_and_no_other() -> None:
    assert set(WRITER.DESCRIPTIONS) == set(METHODS)
    assert f"{len(METHODS)} methods" in text_of(TOP / "CHANGELOG.md")


def test_figures_that_stand_twice_are_the_same() -> None:
    def tables(path: Path) -> list[str]:
        return [line for line in text_of(path).splitlines() if re.match(r"\| .*0\.\d{3}", line)]

    shown = tables(README)
    assert len(shown) == 5
    assert [line for line in tables(PAGES["real-models.md"]) if line in shown] == shown
    unrun = text_of(README).partition("## What was not run\n\n")[2].partition("\n[All limits]")[0]
    assert "H200" in unrun
    assert unrun in text_of(PAGES["limits.md"])


@pytest.mark.parametrize(
    ("language", "file"), [("nginx", "nginx.conf"), ("caddyfile", "Caddyfile")]
)
def test_a_proxy_on_a_page_is_the_one_in_deploy(language: str, file: str) -> None:
    shown = text_of(PAGES["service.md"]).partition(f"```{language}\n")[2].partition("```")[0]
    whole = [line.partition("#")[0].strip() for line in text_of(TOP / "deploy" / file).splitlines()]
    assert len(shown.splitlines()) > 4
    assert {line.strip() for line in shown.splitlines()} <= set(whole)


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_is_one_that_the_command_line_takes(command: str) -> None:
    _, name, *arguments = shlex.split(command, comments=True)
    group = typer.main.get_command(app)
    parent = group.make_context("evomerge", [name], resilient_parsing=True)
    taken = group.get_command(parent, name)  # type: ignore[attr-defined]
    assert taken is not None
    context = taken.make_context(name, arguments, parent=parent)
    for value in context.params.values():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, (str, Path)) and str(each).startswith("examples/"):
                assert (TOP / str(each)).exists()


def test_there_are_commands_of_every_kind() -> None:
    named = {command.split()[1] for command in commands()}
    group = typer.main.get_command(app)
    assert named == set(group.commands)  # type: ignore[attr-defined]


def commands_for_a_server() -> list[tuple[str, list[str]]]:
    """Every command with --server that a page gives: its name and its arguments."""
    found = []
    for path in (README, *PAGES.values()):
        text = "\n".join([*blocks(path, ""), *blocks(path, "bash")])
        for line in re.findall(r"^(?:\.venv/bin/)?evomerge --server \S+ (.+)$", text, re.MULTILINE):
            name, *arguments = shlex.split(line, comments=True)
            found.append((name, arguments))
    return found


def test_commands_for_a_server_are_those_that_it_has_and_all_of_them() -> None:
    group = typer.main.get_command(remote)
    known = commands_for_a_server()
    for name, arguments in known:
        taken = group.commands[name]  # type: ignore[attr-defined]
        taken.make_context(name, arguments)
    assert {name for name, _ in known} == set(group.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_scripts_that_are_named_are_there(name: str) -> None:
    path = README if name == "README.md" else PAGES[name]
    for script in re.findall(r"(?<!/)scripts/\w+(?:\.py)?", text_of(path)):
        assert (TOP / script).exists(), script


def test_jobs_spaces_and_recipes_to_paste_are_read(tmp_path: Path) -> None:
    with (
        installed_example("own_method", tmp_path / "method"),
        installed_example("own_optimizer", tmp_path / "optimizer"),
    ):
        assert read_all() >= 14


def read_all() -> int:
    """How many jobs, spaces and recipes the pages hold; each is read."""
    read = 0
    for page, document, block in jobs():
        if "objectives" in document:
            parse_job(block, where=page)
            read += 1
        elif "optimizer" in document:
            OptimizerSpec.model_validate(document["optimizer"])
            read += 1
        if "merge_method" in document:
            read_recipe(block, where=page)
            read += 1
        spaces = [document.get("search_space")]
        spaces += [stage["search_space"] for stage in document.get("stages", ())]
        for space in spaces:
            if isinstance(space, Mapping):
                check_space(space, where=page)
                read += 1
    return read


@pytest.mark.parametrize("folder", sorted((TOP / "examples").glob("own_*")), ids=lambda f: f.name)
def test_a_part_of_ones_own_is_shown_as_it_is(folder: Path) -> None:
    page = PAGES["extending.md"]
    [code] = folder.glob("evomerge_*/__init__.py")
    assert text_of(code) in blocks(page, "python")
    assert text_of(folder / "pyproject.toml") in blocks(page, "toml")


def test_the_demos_job_is_shown_as_it_is() -> None:
    (shown,) = blocks(PAGES["first-search.md"], "yaml")
    path = TOP / "examples" / "kana" / "job.yaml"
    assert parse_job(shown, where="page") == load_job(path)
    assert text_of(path).endswith(shown)


def test_the_grid_is_shown_as_it_is() -> None:
    (shown,) = blocks(PAGES["grids.md"], "yaml")
    assert shown in text_of(TOP / "examples" / "kana" / "grid.yaml")


@pytest.fixture
def beside_the_examples(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user's, with the folder `examples` of the checkout in it."""
    (tmp_path / "examples").symlink_to(TOP / "examples")
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_the_whole_criterion_runs_as_it_is_written(beside_the_examples: Path) -> None:
    page = PAGES["criteria.md"]
    task, job = blocks(page, "yaml")
    folder = beside_the_examples / "mine"
    folder.mkdir()
    (folder / "doubles.jsonl").write_text(blocks(page, "json")[0], encoding="utf-8")
    (folder / "items.py").write_text(blocks(page, "python")[0], encoding="utf-8")
    (folder / "doubles.yaml").write_text(task, encoding="utf-8")
    (folder / "job.yaml").write_text(job, encoding="utf-8")
    command = next(line for line in commands() if "mine/job.yaml" in line)
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    (shown,) = blocks(page, "text")
    assert result.stdout.strip() == shown.strip()


def test_a_table_becomes_a_task_as_it_is_written(
    beside_the_examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGES["your-data.md"]
    (beside_the_examples / "sums.csv").write_text(blocks(page, "csv")[0], encoding="utf-8")
    command = next(line for line in commands() if "task from-file sums.csv" in line)
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    (shown,) = blocks(page, "text")
    assert result.stdout.strip() == shown.strip()
    (code,) = blocks(page, "python")
    exec(compile(code, "your-data.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0] == "exact exact_match 12"
    assert (beside_the_examples / "sums-again" / "README.md").is_file()


def test_the_way_from_a_table_to_a_better_model_is_gone_as_it_is_written(
    beside_the_examples: Path,
) -> None:
    page = PAGES["from-a-table.md"]
    said = {}
    for command in "".join(blocks(page, "")).splitlines():
        words = shlex.split(command)[1:]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{command}: {result.output}"
        said[words[0]] = result.stdout
    assert list(said) == ["task", "init", "check", "search", "answers", "report", "export"]
    assert "16 questions are almost the same" in said["task"]
    assert "a search accepts this job" in said["check"]
    assert "Gained +" in said["search"]
    assert "lost, exact_match" in said["answers"]
    assert "verified: 0 of 418 items differ" in said["export"]
    assert (beside_the_examples / "runs" / "numbers" / "report.html").is_file()
    assert (beside_the_examples / "better" / "README.md").is_file()


def test_the_recipe_to_save_is_merged(beside_the_examples: Path) -> None:
    (recipe,) = blocks(PAGES["recipes.md"], "yaml")
    Path("recipe.yaml").write_text(recipe, encoding="utf-8")
    command = next(line for line in commands() if line.endswith("recipe.yaml --out merged"))
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    assert (beside_the_examples / "merged" / "model.safetensors").is_file()


def test_the_python_page_runs_from_top_to_bottom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a smaller job of the same name, as the demo's takes half a minute."""
    write_models(tmp_path)
    folder = tmp_path / "examples" / "kana"
    folder.mkdir(parents=True)
    document = job_document(tmp_path)
    (folder / "job.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    names: dict[str, Any] = {}
    with contextlib.chdir(tmp_path):
        for block in blocks(PAGES["python.md"], "python"):
            exec(compile(block, "python.md", "exec"), names)
    assert names["result"].candidates > 16
    scores = names["result"].scores()
    assert next(iter(scores["role"])) == "winner" and "parent" in list(scores["role"])
    assert names["standing"].score.low <= names["standing"].score.value
    assert (tmp_path / "merged" / "recipe.yaml").is_file()
    said = capsys.readouterr().out
    assert names["weights"].tensors > 0 and "against" in said


def test_python_in_the_readme_compiles_and_calls_what_is_there() -> None:
    (block,) = blocks(README, "python")
    compile(block, "README.md", "exec")
    for name in re.findall(r"evomerge\.(\w+)\(", block):
        assert name in evomerge.__all__
    for name in re.findall(r"result\.(\w+)", block):
        assert hasattr(evomerge.SearchResult, name)


def test_what_runs_before_a_commit_is_what_the_tests_check_first() -> None:
    hooks = yaml.safe_load(text_of(TOP / ".pre-commit-config.yaml"))["repos"][0]["hooks"]
    script = text_of(TOP / "scripts" / "test")
    for hook in hooks:
        tool, *arguments = hook["entry"].removeprefix(".venv/bin/").split()
        assert f'"$BIN/{tool}"' in script and all(word in script for word in arguments)

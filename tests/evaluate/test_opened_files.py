"""What a task's code reads is known by name and content, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer
from tests.evaluate.conftest import TASKS

YAML = """
task: reading
custom_dataset: !function dataset.load
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["zero"], max_gen_toks: 4}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""

COMMON = """
import importlib.util, json, pathlib

HERE = pathlib.Path(__file__).parent
spec = importlib.util.spec_from_file_location("HELPER", HERE / "helper.py")
helper = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helper)
AT_IMPORT = (HERE / "words.txt").read_text()


def process(doc, results):
    weights = json.loads((HERE / "weights.json").read_text())
    with open(HERE / "log.txt", "a") as log:
        log.write("scored")
    return {"exact_match": float(helper.right(doc, results[0]) * weights["all"])}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task whose scoring is in a folder beside its own."""
    return write(tmp_path)


def write(parent: Path) -> Path:
    mine, common = parent / "mine", parent / "common"
    mine.mkdir(parents=True)
    common.mkdir()
    shutil.copy(TASKS / "dataset.py", mine)
    (common / "base.yaml").write_text("process_results: !function metrics.process\n")
    (common / "metrics.py").write_text(COMMON.replace("HELPER", f"helper_of_{parent.name}"))
    (common / "helper.py").write_text("def right(doc, said):\n    return said == doc['answer']\n")
    (common / "words.txt").write_text("one two")
    (common / "weights.json").write_text('{"all": 1}')
    (mine / "task.yaml").write_text(f"include: ../common/base.yaml\n{YAML}")
    return mine


def load(folder: Path) -> TaskSuite:
    return TaskSuite.load(["reading"], folders=[folder], tokenizer=word_tokenizer())


def hashes(suite: TaskSuite) -> dict[str, str]:
    return {name: file.sha256 for name, file in suite.opened_files.items()}


READ = {"common/metrics.py", "common/helper.py", "common/words.txt"}


def test_modules_and_files_outside_the_folder_are_known(folder: Path) -> None:
    files = hashes(load(folder))
    assert set(files) >= READ
    assert {name.split("/")[0] for name in files} == {"mine", "common"}


def test_what_is_read_only_while_answers_are_scored_is_known_then(
    folder: Path, engine: TransformersEngine
) -> None:
    suite = load(folder)
    before = hashes(suite)
    assert not {"common/weights.json", "common/log.txt"} & set(before)
    count = suite.opened_count
    suite.score(engine, {"reading": (0, 1)})
    assert suite.opened_count > count
    after = hashes(suite)
    assert set(after) - set(before) == {"common/weights.json", "common/log.txt"}
    assert after["common/log.txt"] == "written by the task"
    assert suite.opened_files["common/weights.json"].place == "common/weights.json"
    # Another search of the process has not read it.
    assert hashes(load(folder)) == before


@pytest.mark.parametrize("name", sorted(READ))
def test_a_change_of_one_changes_its_hash_alone(folder: Path, name: str) -> None:
    before = hashes(load(folder))
    changed = folder.parent / name
    added = " " if changed.suffix == ".txt" else "\n# changed\n"
    changed.write_text(changed.read_text() + added)
    after = hashes(load(folder))
    assert {key for key in before | after if before.get(key) != after.get(key)} == {name}


def test_loading_twice_in_a_process_finds_the_same(folder: Path) -> None:
    assert load(folder).opened_files == load(folder).opened_files


def test_names_do_not_depend_on_where_it_all_lies(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "deep" / "er" / "a")
    assert hashes(load(first)) == hashes(load(second))


def test_two_tasks_may_read_files_of_one_name(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    text = (second / "task.yaml").read_text()
    (second / "task.yaml").write_text(text.replace("task: reading", "task: other"))
    (second.parent / "common" / "words.txt").write_text("three")

    def both() -> dict[str, str]:
        suite = TaskSuite.load(
            ["reading", "other"], folders=[first, second], tokenizer=word_tokenizer()
        )
        return hashes(suite)

    before = both()
    (first.parent / "common" / "words.txt").write_text("four")
    assert before != both()


def test_nothing_is_heard_once_the_task_is_loaded(folder: Path, tmp_path: Path) -> None:
    suite = load(folder)
    before = hashes(suite)
    with (tmp_path / "other.txt").open("w") as file:
        file.write("of no task")
    assert (tmp_path / "other.txt").read_text() == "of no task"
    assert hashes(load(folder)) == before


@pytest.mark.parametrize("installed", [True, False])
def test_a_package_that_pythonpath_names_is_no_file_of_the_task(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """As modules of a cluster are: it has a version, where its installer left one."""
    apps = tmp_path / "apps"
    package = apps / f"counting_{installed}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def count(words):\n    return len(words)\n")
    if installed:
        (apps / "counting-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(apps))
    helper = folder.parent / "common" / "helper.py"
    helper.write_text(f"from counting_{installed} import count\n{helper.read_text()}")
    named = f"apps/counting_{installed}/__init__.py"
    assert (named in hashes(load(folder))) == (not installed)

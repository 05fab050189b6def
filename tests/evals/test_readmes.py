"""What the READMEs of the criteria tell a user to paste is there, and runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer
from tests.evals.scripted import EVALS

CRITERIA = ("japanese_maths", "english_maths", "instructions", "code_outputs", "knowledge")

_DATA = "from datasets import Dataset\n\n\ndef load(**_):\n    return "
_ITEMS = '{"test": Dataset.from_list([{"question": "1 + 1", "answer": "2"}] * 20)}\n'
_TASK = """
task: mine
custom_dataset: !function mine.load
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["?"], do_sample: false, max_gen_toks: 5}
num_fewshot: 0
"""


class _AsText(yaml.SafeLoader):
    """`!function` as the text after it."""


_AsText.add_multi_constructor("!", lambda _loader, _tag, node: node.value)


def blocks(readme: Path) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)


def settings(path: Path) -> dict[str, object]:
    """A task file with what it includes."""
    read = yaml.load(path.read_text(encoding="utf-8"), _AsText)
    included = read.pop("include", None)
    return {**(settings(path.parent / included) if included else {}), **read}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_objectives_to_paste_name_tasks_and_metrics_that_are_there(criterion: str) -> None:
    folder = EVALS / criterion
    tasks = {str(found["task"]): found for found in map(settings, task_files(folder))}
    (pasted,) = blocks(folder / "README.md")
    objectives = yaml.safe_load(pasted)["objectives"]
    assert objectives
    for objective in objectives:
        listed = tasks[objective["task"]]["metric_list"]
        assert isinstance(listed, list)
        assert objective["metric"] in {entry["metric"].rpartition(".")[2] for entry in listed}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_readme_names_every_task_and_metric_of_its_folder(criterion: str) -> None:
    text = (EVALS / criterion / "README.md").read_text(encoding="utf-8")
    index = (EVALS / "README.md").read_text(encoding="utf-8")
    for path in task_files(EVALS / criterion):
        found = settings(path)
        assert f"`{found['task']}`" in text
        assert f"`{found['task']}`" in index
        listed = found["metric_list"]
        assert isinstance(listed, list)
        for entry in listed:
            assert f"`{entry['metric'].rpartition('.')[2]}`" in text


def task_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.yaml")) if path.name != "requests.yaml"]


@pytest.mark.parametrize(("place", "metrics"), [(0, {"language", "kept"}), (1, {"exact_match"})])
def test_the_conditions_to_paste_make_a_task(tmp_path: Path, place: int, metrics: set[str]) -> None:
    pasted = blocks(EVALS / "README.md")[place]
    if "metric_list" not in pasted:
        pasted += "metric_list:\n  - {metric: exact_match, aggregation: mean}\n"
    (tmp_path / "mine.py").write_text(_DATA + _ITEMS, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(_TASK + pasted, encoding="utf-8")
    suite = TaskSuite.load(["mine"], folders=[tmp_path], tokenizer=word_tokenizer())
    assert set(suite.metrics("mine")) == metrics

"""Task files are looked at as text before they are loaded, and what is wrong is one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from evomerge.errors import TaskError
from evomerge.evaluate.catalogue import TaskCatalogue
from evomerge.evaluate.suite import TaskSuite
from evomerge.evaluate.task_files import check_names, unknown_task
from tests.checkpoints import word_tokenizer

_ITEMS = "".join(json.dumps({"q": f"{n} + 1 =", "a": str(n + 1)}) + "\n" for n in range(20))


def write_task(folder: Path, data: str | None = _ITEMS, **changes: str) -> None:
    """A task `mine` over a file of lines; `changes` replace what its keys have."""
    if data is not None:
        (folder / "mine.jsonl").write_text(data)
    keys = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": f"{{data_files: {{test: {folder / 'mine.jsonl'}}}}}",
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": '"{{q}}"',
        "doc_to_target": '"{{a}}"',
        "metric_list": "[{metric: exact_match, aggregation: mean, higher_is_better: true}]",
        **changes,
    }
    (folder / "mine.yaml").write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))


def refusal(folder: Path, name: str = "mine") -> str:
    with pytest.raises(TaskError) as raised:
        TaskSuite.load([name], folders=[folder], tokenizer=word_tokenizer())
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_the_task_of_these_tests_can_be_loaded(tmp_path: Path) -> None:
    write_task(tmp_path)
    suite = TaskSuite.load(["mine"], folders=[tmp_path], tokenizer=word_tokenizer())
    assert suite.size("mine") == 20


@pytest.mark.parametrize("data", ["", "\n\n"])
def test_a_task_without_items_is_said_so(tmp_path: Path, data: str) -> None:
    write_task(tmp_path, data)
    assert refusal(tmp_path) == (
        "task mine: its data hold no documents; put some into the file that its YAML names; check "
        f"{tmp_path / 'mine.yaml'}"
    )


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    write_task(tmp_path, _ITEMS + '{"q": \n')
    assert "its data cannot be read (JSON parse error" in refusal(tmp_path)


def test_an_unknown_metric_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    write_task(tmp_path, metric_list="[{metric: exakt, aggregation: mean, higher_is_better: true}]")
    assert "task mine: metric exakt: neither" in refusal(tmp_path)


def test_a_data_set_that_cannot_be_reached_is_one_line_with_the_mend(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_task(tmp_path, None, dataset_path="nobody/nothing_here", dataset_kwargs="{}")
    said = refusal(tmp_path)
    assert "its data set is not on this machine and the hub cannot be reached" in said
    assert "HF_HOME" in said
    assert not [r for r in caplog.records if r.name.startswith(("huggingface_hub", "datasets"))]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"include": "nowhere.yaml"}, "nowhere.yaml"),
        ({"include": "mine.yaml"}, "Include cycle"),
        ({"group": "ours"}, "has both task and group"),
    ],
)
def test_a_task_that_lm_eval_leaves_out_is_not_called_unknown(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    write_task(tmp_path, **changes)
    said = refusal(tmp_path)
    assert words in said
    assert "unknown" not in said


def test_a_group_is_refused_with_the_tasks_of_its_groups(tmp_path: Path) -> None:
    for name in ("one", "two", "three", "four"):
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\ntag: {name}s\n")
    (tmp_path / "inner.yaml").write_text("group: inner\ntask: [twos, three]\n")
    (tmp_path / "outer.yaml").write_text(
        "group: outer\ntask:\n- inner\n- one\n- group: own\n  task: [four, {task: one}]\n"
    )
    with pytest.raises(TaskError) as raised:
        TaskCatalogue([tmp_path]).find("outer")
    assert str(raised.value) == (
        "task outer: a group of tasks; name the members you want: one, four, three, two"
    )


def test_a_file_that_would_crash_or_hang_the_loader_is_refused(tmp_path: Path) -> None:
    write_task(tmp_path)
    laughs = "a0: &a0 [lol]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    other = tmp_path / "other.yaml"
    for text in ("metadata: " + "[" * 100_000, laughs, "metadata: &a [*a]"):
        other.write_text(text)
        with pytest.raises(TaskError, match=r"other\.yaml: line "):
            check_names(["mine"], [tmp_path])
    other.unlink()
    os.mkfifo(other)
    with pytest.raises(TaskError, match=r"other\.yaml: not a regular file"):
        check_names(["mine"], [tmp_path])


def test_what_a_task_file_includes_is_looked_at_too(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    write_task(folder, include="../common.yml")
    (tmp_path / "common.yml").write_text("metadata: " + "[" * 100_000)
    with pytest.raises(TaskError, match=r"common\.yml: line 1: .* nested more than 64"):
        check_names(["mine"], [folder])


def test_names_are_looked_for_in_every_place(tmp_path: Path) -> None:
    write_task(tmp_path)
    check_names(["mine", "kana_arithmetic_en", "arc_easy", "mmlu"], [tmp_path])
    with pytest.raises(TaskError, match=r"task kana_arithmetic_em: unknown; did you mean kana_ar"):
        check_names(["mine", "kana_arithmetic_em"], [tmp_path])
    with pytest.raises(TaskError, match=r"task : unknown"):
        check_names([""], [tmp_path])
    with pytest.raises(TaskError, match=r"nowhere is no folder"):
        check_names(["mine"], [tmp_path / "nowhere"])


def test_a_task_in_a_file_that_is_no_yaml_is_not_offered_instead_of_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\n  more: [")
    error = str(unknown_task("mine", [tmp_path]))
    assert "mine.yaml is not readable YAML" in error
    (tmp_path / "mine.yaml").write_text("task: [mine]\ndescription: 'task: mine'\n")
    assert "did you mean mine?" not in str(unknown_task("mine", [tmp_path]))

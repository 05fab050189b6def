"""The tasks of lm-eval's groups and tags, and how a group's file weighs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.errors import TaskError
from evomerge.evaluate.catalogue import find_members
from evomerge.evaluate.groups import Members

GROUPS = Path(__file__).parents[1] / "search" / "groups"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\ntag: [numbers, {name}s]\n")
    return tmp_path


def members(folder: Path, group: str, metric: str = "acc") -> Members | None:
    (folder / "group.yaml").write_text(group)
    return find_members("outer", metric, [folder])


SIZED = "aggregate_metric_list: [{metric: acc, filter_list: [strict, loose]}]\n"


def test_a_task_is_no_group(folder: Path) -> None:
    assert find_members("one", "acc", [folder]) is None


@pytest.mark.parametrize(
    ("rows", "by_size"),
    [
        ("", False),
        ("aggregate_metric_list: {metric: acc}\n", True),
        (SIZED, True),
        ("aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n", True),
        ("aggregate_metric_list: [{metric: f1}, {metric: acc, weight_by_size: false}]\n", False),
    ],
)
def test_a_groups_file_says_how_its_tasks_weigh(folder: Path, rows: str, by_size: bool) -> None:
    found = members(folder, f"group: outer\ntask: [one, two]\n{rows}")
    assert found == Members(members=("one", "two"), weight_by_size=by_size)


def test_the_tasks_of_a_tag_weigh_the_same(folder: Path) -> None:
    found = find_members("numbers", "acc", [folder])
    assert found == Members(members=("one", "three", "two"), weight_by_size=False)


def test_groups_and_tags_in_a_group_count_with_all_their_tasks(folder: Path) -> None:
    (folder / "inner.yaml").write_text("group: inner\ntask: [threes, one]\n")
    found = members(
        folder,
        "group: outer\ntask:\n- inner\n- one\n- one\n- {group: own, task: [two, {task: one}]}\n"
        "- {task: three, task_alias: drei}\n",
    )
    assert found is not None
    assert found.members == ("three", "one", "one", "two", "one", "three"), "as lm-eval counts"


def test_lm_eval_counts_the_same_tasks(folder: Path) -> None:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False, include_path=str(GROUPS))
    group = manager.load(["sized"])["groups"]["sized"]
    found = find_members("sized", "acc", [GROUPS])
    assert found is not None
    assert [task.task_name for task in group.get_all_tasks()] == list(found.members)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("group: outer\ntask: []\n", "the group has no tasks"),
        ("group: outer\ntask: [outer]\n", "contains itself"),
        ("group: outer\ntask: [four]\n", "its member four is no task of its own"),
        ("group: outer\ntask: [{task: one, num_fewshot: 3}]\n", r"settings .*\(num_fewshot\)"),
        ("group: outer\ntask: [one]\noutput_type: x\n", r"settings of its tasks \(output_type\)"),
        (f"group: outer\ntask: [one]\n{SIZED}", "has no metric exact_match; it has acc"),
        (
            "group: outer\ntask: [one]\naggregate_metric_list: [{metric: acc, aggregation: max}]\n",
            "aggregate_metric_list: Currently, 'mean' is the only",
        ),
    ],
)
def test_a_group_that_is_more_than_a_list_of_tasks_is_refused_in_one_line(
    folder: Path, group: str, words: str
) -> None:
    with pytest.raises(TaskError, match=words) as raised:
        members(folder, group, metric="exact_match" if "exact_match" in words else "acc")
    assert str(raised.value).startswith("task outer: ")
    assert len(str(raised.value).splitlines()) == 1


def test_a_filter_that_the_group_does_not_aggregate_is_refused(folder: Path) -> None:
    group = f"group: outer\ntask: [one]\n{SIZED}"
    assert members(folder, group, metric="acc,strict") is not None
    with pytest.raises(TaskError, match="no metric acc,other"):
        members(folder, group, metric="acc,other")

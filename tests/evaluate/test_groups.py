"""The tasks of lm-eval's groups and tags, and how a group's file weighs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.errors import TaskError
from evomerge.evaluate.catalogue import find_members, find_tasks
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
        ("aggregate_metric_list: [{metric: acc}, {metric: acc, weight_by_size: false}]\n", False),
        ("aggregate_metric_list: {metric: acc}\n", True),
        ("aggregate_metric_list: [{metric: acc, filter_list: [x, none]}]\n", True),
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


def test_of_two_members_with_one_name_the_last_counts_as_in_lm_eval(folder: Path) -> None:
    (folder / "inner.yaml").write_text("group: inner\ntask: [one, two]\n")
    found = members(
        folder,
        "group: outer\ntask:\n- inner\n- {group: own, task: [one]}\n- {group: inner}\n"
        "- {group: own, task: [three, two]}\n",
    )
    assert found is not None
    assert found.members == ("one", "two", "three", "two")


def test_members_may_be_tasks_of_other_folders(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "group.yaml").write_text("group: outer\ntask: [two, kana_counting_ja]\n")
    found = find_members("outer", "acc", [other, folder])
    assert found is not None
    assert found.members == ("two", "kana_counting_ja")


def test_a_name_stands_for_its_tasks_each_once(folder: Path) -> None:
    (folder / "inner.yaml").write_text("group: inner\ntask: [threes, one]\n")
    (folder / "group.yaml").write_text("group: outer\ntask: [one, inner]\n")
    assert find_tasks("outer", [folder]) == ("one", "three")
    assert find_tasks("numbers", [folder]) == ("one", "three", "two")
    assert find_tasks("two", [folder]) == ("two",)


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
        ("group: outer\ntask: [{group: in, task: [one, outer]}]\n", "contains itself"),
        ("group: outer\ntask: [thrxee]\n", "its member thrxee: unknown; did you mean three"),
        ("group: outer\ntask: [{task: twos}]\n", "takes for a single task; write twos alone"),
        ("group: outer\ntask: 7\n", "lists 7, which is no name; list names of tasks"),
        ("group: outer\ntask: {one: 1}\n", r"lists {'one': 1}, which is no name"),
        ("group: outer\ntask: [[one]]\n", r"lists \['one'\], which is no name"),
        ("group: outer\ntask: [one]\naggregate_metric_list: acc\n", "write a list of mappings"),
        (
            "group: outer\ntask: [one]\naggregate_metric_list: [{metric: acc, filter_list: 3}]\n",
            "write a list of mappings",
        ),
        ("group: outer\ntask: [qwzx]\n", "its member qwzx: unknown; check the name"),
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


@pytest.mark.parametrize(
    "rows",
    [
        SIZED,
        "aggregate_metric_list: [{metric: acc, filter_list: strict, weight_by_size: false}, "
        "{metric: acc, filter_list: [loose, none]}]\n",
    ],
    ids=["no_plain_score", "other_weights"],
)
def test_a_metric_that_depends_on_the_filter_needs_the_filter(folder: Path, rows: str) -> None:
    group = f"group: outer\ntask: [one]\n{rows}"
    with pytest.raises(
        TaskError, match=r"depends on the filter; write acc,loose or acc,"
    ) as raised:
        members(folder, group, metric="acc")
    assert "acc,strict" in str(raised.value)
    strict, loose = (members(folder, group, metric=f"acc,{each}") for each in ("strict", "loose"))
    assert strict is not None
    assert loose is not None
    assert (strict.weight_by_size, loose.weight_by_size) == (rows == SIZED, True)


def test_a_filter_that_the_group_does_not_aggregate_is_refused(folder: Path) -> None:
    group = f"group: outer\ntask: [one]\n{SIZED}"
    assert members(folder, group, metric="acc,strict") is not None
    with pytest.raises(TaskError, match="no metric acc,other"):
        members(folder, group, metric="acc,other")

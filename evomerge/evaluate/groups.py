"""The tasks of lm-eval's groups and tags, and how a group weighs them.

A group's score in lm-eval is a mean over all its tasks, also over those of the groups in it. It is
weighted by their numbers of items, or not weighted, as the group's file says for each metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.config.group import GroupConfig
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from evomerge.errors import TaskError, one_line

_OF_GROUPS = frozenset(
    {"group", "group_alias", "task", "tag", "aggregate_metric_list", "metadata", "include"}
)
"""Keys of a group's file. lm-eval gives other keys to the group's tasks."""

_WITHOUT_EFFECT = frozenset({"task", "task_alias", "group", "group_alias"})
"""Keys beside a task in a group that do not change what is asked."""


@dataclass(frozen=True, kw_only=True)
class Members:
    """The tasks of a group, each as often as the group counts it.

    weight_by_size: whether each weighs by its number of items. A tag, and a group that says nothing
    on its metrics, has no score of its own in lm-eval: its tasks weigh the same.
    """

    members: tuple[str, ...]
    weight_by_size: bool


def members_of(manager: TaskManager, name: str, metric: str) -> Members:
    """The members of a group or a tag. Raises TaskError if it is more than a list of tasks."""
    if name in manager.all_tags:
        return Members(members=tuple(sorted(manager.task_index[name].tags)), weight_by_size=False)
    config = _config_of(manager, name)
    tasks = tuple(_tasks_in(manager, config, name, ()))
    if not tasks:
        raise TaskError(f"task {name}: the group has no tasks; name another")
    return Members(members=tasks, weight_by_size=_weighs_by_size(config, name, metric))


def _config_of(manager: TaskManager, name: str) -> dict[str, Any]:
    entry = manager.task_index[name]
    if entry.yaml_path is None:
        return dict(entry.cfg or {})
    return dict(load_yaml(entry.yaml_path, resolve_func=False))


def _tasks_in(
    manager: TaskManager, config: Mapping[str, Any], name: str, above: tuple[str, ...]
) -> Iterator[str]:
    """The tasks of a group, in its order; a task of several inner groups comes several times."""
    if name in above:
        raise TaskError(f"task {above[0]}: the group {name} contains itself; mend its file")
    _refuse_changes(set(config) - _OF_GROUPS, name, above)
    listed = config.get("task") or ()
    direct: set[str] = set()
    for member in [listed] if isinstance(listed, str) else listed:
        for task, inner in _members_in(manager, member, name, above):
            if inner or task not in direct:
                yield task
            if not inner:
                direct.add(task)


def _members_in(
    manager: TaskManager, member: object, name: str, above: tuple[str, ...]
) -> Iterator[tuple[str, bool]]:
    """(task, whether it is in an inner group) for one entry of a group's list."""
    within = (*above, name)
    if isinstance(member, Mapping):
        if "group" in member and member["group"] not in manager.task_index:
            inside = _tasks_in(manager, member, f"{name}::{member['group']}", within)
            yield from ((task, True) for task in inside)
            return
        _refuse_changes(set(member) - _WITHOUT_EFFECT, name, above)
        member = member.get("group", member.get("task"))
    found = str(member)
    if found in manager.all_groups:
        inside = _tasks_in(manager, _config_of(manager, found), found, within)
        yield from ((task, True) for task in inside)
    elif found in manager.all_tags:
        yield from ((task, False) for task in sorted(manager.task_index[found].tags))
    elif found in manager.task_index:
        yield found, False
    else:
        raise TaskError(
            f"task {(*above, name)[0]}: its member {found} is no task of its own; name the tasks "
            "that you want"
        )


def _refuse_changes(keys: set[str], name: str, above: tuple[str, ...]) -> None:
    if keys:
        raise TaskError(
            f"task {(*above, name)[0]}: the group {name} changes settings of its tasks "
            f"({', '.join(sorted(keys))}); name the tasks that you want"
        )


def _weighs_by_size(config: Mapping[str, Any], name: str, metric: str) -> bool:
    try:
        rows = GroupConfig(group=name, aggregate_metric_list=config.get("aggregate_metric_list"))
    except (TypeError, ValueError) as error:
        raise TaskError(f"task {name}: aggregate_metric_list: {one_line(error)}") from error
    bare, _, filter_name = metric.partition(",")
    listed: Sequence[Any] = rows.aggregate_metric_list or ()
    if not listed:
        return False
    for row in listed:
        filters = row.filter_list
        if row.metric == bare and (filters is None or not filter_name or filter_name in filters):
            return bool(row.weight_by_size)
    known = ", ".join(dict.fromkeys(row.metric for row in listed))
    raise TaskError(f"task {name}: the group has no metric {metric}; it has {known}")

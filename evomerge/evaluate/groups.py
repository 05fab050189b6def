"""The tasks of lm-eval's groups and tags, and how a group weighs them.

A group's score in lm-eval is a mean over all its tasks, also over those of the groups in it. It is
weighted by their numbers of items, or not weighted, as the group's file says for each metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

_NO_FILTER = "none"
"""lm-eval's name for the filter of tasks that name none."""

FindManager = Callable[[str], TaskManager]
"""A name -> the manager that has it; raises TaskError if none has."""


@dataclass(frozen=True, kw_only=True)
class Members:
    """The tasks of a group, each as often as the group counts it.

    weight_by_size: whether each weighs by its number of items. A tag, and a group that says nothing
    on its metrics, has no score of its own in lm-eval: its tasks weigh the same.
    """

    members: tuple[str, ...]
    weight_by_size: bool


def members_of(find: FindManager, name: str, metric: str) -> Members | None:
    """The members of a group or a tag, None for a task. Raises TaskError for other groups.

    metric: as a job names it.
    """
    manager = find(name)
    if name in manager.all_tags:
        return Members(members=tuple(sorted(manager.task_index[name].tags)), weight_by_size=False)
    if name not in manager.all_groups:
        return None
    config = _config_of(manager, name)
    return Members(
        members=_tasks_in(find, config, name),
        weight_by_size=_weighs_by_size(config, name, metric),
    )


def tasks_of(find: FindManager, name: str) -> tuple[str, ...]:
    """The tasks of a name, each once: of a group, a tag, or the task itself. Raises TaskError."""
    manager = find(name)
    if name in manager.all_groups:
        return tuple(dict.fromkeys(_tasks_in(find, _config_of(manager, name), name)))
    return tuple(sorted(manager.task_index[name].tags)) if name in manager.all_tags else (name,)


def _config_of(manager: TaskManager, name: str) -> dict[str, Any]:
    entry = manager.task_index[name]
    if entry.yaml_path is None:
        return dict(entry.cfg or {})
    try:
        return dict(load_yaml(entry.yaml_path, resolve_func=False))
    except Exception as error:  # lm-eval's loader raises many kinds of errors
        raise TaskError(f"task {name}: {one_line(error)}; check {entry.yaml_path}") from error


def _tasks_in(find: FindManager, config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    tasks = _Expansion(find, name).tasks_in(config, name, ())
    if not tasks:
        raise TaskError(f"task {name}: the group has no tasks; name another")
    return tasks


@dataclass(frozen=True)
class _Expansion:
    """Finds the tasks of one group. top: its name."""

    find: FindManager
    top: str

    def tasks_in(
        self, config: Mapping[str, Any], name: str, above: tuple[str, ...]
    ) -> tuple[str, ...]:
        """The tasks of a group, in its order; a task of several inner groups comes several times.

        As in lm-eval, of two members with the same name the last one counts, in the first's place.
        """
        if name in above:
            raise TaskError(f"task {self.top}: the group {name} contains itself; mend its file")
        self._refuse_changes(set(config) - _OF_GROUPS, name)
        listed = config.get("task") or []
        members: dict[str, tuple[str, ...]] = {}
        for member in listed if isinstance(listed, list) else [listed]:
            members |= self._member(member, name, (*above, name))
        return tuple(task for tasks in members.values() for task in tasks)

    def _member(
        self, member: object, name: str, within: tuple[str, ...]
    ) -> dict[str, tuple[str, ...]]:
        """Name -> tasks, for one entry of a group's list: a tag is as many names as tasks."""
        found, renames = member, False
        if isinstance(member, Mapping):
            found, renames = member.get("group", member.get("task")), "task" in member
        if not isinstance(found, str):
            raise TaskError(
                f"task {self.top}: the group {name} lists {one_line(repr(member))}, which is no "
                "name; list names of tasks"
            )
        if isinstance(member, Mapping):
            if "group" in member and isinstance(member.get("task"), list):
                inner = f"{name}::{found}"
                return {inner: self.tasks_in(member, inner, within)}
            self._refuse_changes(set(member) - _WITHOUT_EFFECT, name)
        manager = self._manager(found)
        if found not in manager.all_groups and found not in manager.all_tags:
            return {found: (found,)}
        if renames:
            raise TaskError(
                f"task {self.top}: the group {name} lists {found} as `task: {found}`, which "
                f"lm-eval takes for a single task; write {found} alone"
            )
        if found in manager.all_groups:
            return {found: self.tasks_in(_config_of(manager, found), found, within)}
        return {task: (task,) for task in sorted(manager.task_index[found].tags)}

    def _manager(self, member: str) -> TaskManager:
        try:
            return self.find(member)
        except TaskError as error:
            why = str(error).removeprefix("task ")
            raise TaskError(f"task {self.top}: its member {why}") from error

    def _refuse_changes(self, keys: set[str], name: str) -> None:
        if keys:
            raise TaskError(
                f"task {self.top}: the group {name} changes settings of its tasks "
                f"({', '.join(sorted(map(str, keys)))}); name the tasks that you want"
            )


def _weighs_by_size(config: Mapping[str, Any], name: str, metric: str) -> bool:
    """What the file says for a metric; as in lm-eval, of several rows for it the last counts."""
    try:
        rows = GroupConfig(group=name, aggregate_metric_list=config.get("aggregate_metric_list"))
        listed: Sequence[Any] = rows.aggregate_metric_list or ()
        sound = all(row.filter_list is None or isinstance(row.filter_list, list) for row in listed)
    except (TypeError, ValueError) as error:
        raise TaskError(f"task {name}: aggregate_metric_list: {one_line(error)}") from error
    except AttributeError:  # a row that is no mapping
        sound = False
    if not sound:
        raise TaskError(
            f"task {name}: aggregate_metric_list: write a list of mappings, as "
            "{metric: acc, weight_by_size: true}"
        )
    if not listed:
        return False
    bare, _, filter_name = metric.partition(",")
    of_metric = [row for row in listed if row.metric == bare]
    named = {each for row in of_metric for each in row.filter_list or (_NO_FILTER,)}
    last = {
        each: bool(row.weight_by_size)
        for row in of_metric
        for each in ({filter_name} if filter_name else named)
        if row.filter_list is None or each in row.filter_list
    }
    if not filter_name and last and (_NO_FILTER not in last or len(set(last.values())) > 1):
        ways = " or ".join(f"{bare},{each}" for each in sorted(last))
        raise TaskError(
            f"task {name}: what the group has as {bare} depends on the filter; write {ways}"
        )
    if last:
        return next(iter(last.values()))
    known = ", ".join(dict.fromkeys(row.metric for row in listed))
    raise TaskError(f"task {name}: the group has no metric {metric}; it has {known}")

"""Settings of a task's filters and conditions, read once while the task is loaded.

lm-eval reads them with the first answers, which is after a search has been set up and models have
been merged. It does not know what the settings mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from lm_eval.api.task import ConfigurableTask, Task

from evomerge.conditions import metrics
from evomerge.errors import TaskError, one_line


def check_settings(task: Task, *, where: str) -> None:
    """Build every filter, and ask every metric of ours about an empty answer.

    Raises TaskError, with `where` in front, for settings that a filter or a metric refuses.
    """
    if not isinstance(task, ConfigurableTask):
        return
    for ensemble in task._filters:
        for build in ensemble.filters:
            _try(build, where=f"{where}: filter {ensemble.name}")
    for name, function in task._metric_fn_list.items():
        computed = task.OUTPUT_TYPE == "generate_until"  # the others know their metrics by name
        if function is None and computed and not callable(task.config.process_results):
            raise TaskError(
                f"{where}: metric {name}: neither lm-eval nor the library `evaluate` has it here; "
                "check its name in the task's YAML"
            )
        # lm-eval keeps a metric that is a function by its bound `__call__`.
        if getattr(getattr(function, "__self__", None), "__module__", None) == metrics.__name__:
            settings = task._metric_fn_kwargs[name]
            score = functools.partial(function, references=[""], predictions=[""], **settings)
            _try(score, where=f"{where}: metric {name}")


def _try(build: Callable[[], object], *, where: str) -> None:
    try:
        build()
    except (Exception, SystemExit) as error:  # Filters are a task's own code too.
        said = error if isinstance(error, TaskError) else f"{type(error).__name__}: {error}"
        raise TaskError(f"{where}: {one_line(said)}; check the task's YAML") from error

"""A task's templates, filters and conditions, compiled once while the task is loaded.

lm-eval compiles a template at every call. That takes longer than a small model needs for an item. A
task's fields may also be functions, so each template becomes a function that holds the compiled
template. The function reads the rendered text as lm-eval 0.4.13 does.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping
from typing import Any

from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.utils import env

from evomerge.conditions import metrics
from evomerge.errors import TaskError, one_line

Render = Callable[[Mapping[str, Any]], Any]


def compile_templates(task: Task) -> None:
    """Replace the templates of texts, targets and choices, also for the few-shot examples."""
    if not isinstance(task, ConfigurableTask) or task.prompt is not None:
        return
    chooses = task.config.doc_to_choice is not None
    compilers: dict[str, Callable[[str], Render]] = {
        "doc_to_text": lambda template: _text(template, chooses=chooses),
        "doc_to_target": lambda template: _target(template, chooses=chooses),
        "doc_to_choice": _choices,
    }
    for field, compile_template in compilers.items():
        # A string that names a column is looked up, not rendered: that is fast already.
        task_template = task.get_config(field)
        if isinstance(task_template, str) and task_template not in task.features:
            task.set_config(key=field, value=compile_template(task_template))
        fewshot_template = getattr(task.fewshot_cfg, field)
        if isinstance(fewshot_template, str) and fewshot_template not in task.features:
            setattr(task.fewshot_cfg, field, compile_template(fewshot_template))


def _text(template: str, *, chooses: bool) -> Render:
    compiled = env.from_string(template)

    def render(document: Mapping[str, Any]) -> Any:
        text: str = compiled.render(**document)
        return ast.literal_eval(text) if chooses and text.isdigit() else text

    return render


def _target(template: str, *, chooses: bool) -> Render:
    render_text = _text(template, chooses=chooses)

    def render(document: Mapping[str, Any]) -> Any:
        text = render_text(document)
        if isinstance(text, str) and len(text) >= 2 and text[0] == "[" and text[-1] == "]":
            try:
                return ast.literal_eval(text)
            except (SyntaxError, ValueError):
                return text
        return text

    return render


def _choices(template: str) -> Render:
    compiled = env.from_string(template)
    return lambda document: ast.literal_eval(compiled.render(**document))


# Settings of a task's filters and conditions, read once while the task is loaded.
#
# lm-eval reads them only with the first answers. By then a search has been set up and models have
# been merged.


def check_settings(task: Task, *, where: str) -> None:
    """Build every filter, and score an empty answer with each of evomerge's own metrics.

    Raises TaskError, with `where` in front, for settings that a filter or a metric refuses.
    """
    if not isinstance(task, ConfigurableTask):
        return
    for ensemble in task._filters:
        for build in ensemble.filters:
            _try(build, where=f"{where}: filter {ensemble.name}")
    for name, function in task._metric_fn_list.items():
        computed = task.OUTPUT_TYPE == "generate_until"  # others know their metrics by name
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
        reason = error if isinstance(error, TaskError) else f"{type(error).__name__}: {error}"
        raise TaskError(f"{where}: {one_line(reason)}; check the task's YAML") from error

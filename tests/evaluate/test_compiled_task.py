"""Compiled templates say what lm-eval's own rendering says."""

from __future__ import annotations

import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from evomerge.evaluate.compiled_task import compile_templates
from tests.evaluate.conftest import SCORABLE, TASKS


def load(name: str) -> ConfigurableTask:
    manager = TaskManager(include_defaults=False, include_path=str(TASKS))
    return manager.load([name])["tasks"][name]


@pytest.mark.parametrize("name", [*SCORABLE, "toy_templates"])
def test_texts_targets_and_choices_are_unchanged(name: str) -> None:
    stock, compiled = load(name), load(name)
    compile_templates(compiled)
    for document in stock.eval_docs:
        assert compiled.doc_to_text(document) == stock.doc_to_text(document)
        assert compiled.doc_to_target(document) == stock.doc_to_target(document)
        if stock.config.doc_to_choice is not None:
            assert compiled.doc_to_choice(document) == stock.doc_to_choice(document)
        shown = compiled.fewshot_cfg.doc_to_target
        assert compiled.doc_to_target(document, shown) == stock.doc_to_target(document)


def test_targets_that_look_like_lists_are_lists_where_they_can_be() -> None:
    task = load("toy_templates")
    compile_templates(task)
    kinds = {type(task.doc_to_target(document)) for document in task.eval_docs}
    assert kinds == {list, str}


def test_a_digit_is_an_index_only_where_there_are_choices() -> None:
    for name, kind in (("toy_templates", str), ("toy_choice", int)):
        task = load(name)
        compile_templates(task)
        field = task.doc_to_text if kind is str else task.doc_to_target
        assert type(field(task.eval_docs[0])) is kind

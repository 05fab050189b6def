"""Scores are lm-eval's own: the same as its evaluator and model give, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM

from evomerge.evaluate.answers import ELLIPSIS
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import load_tensors, word_tokenizer
from tests.evaluate.conftest import SCORABLE, TASKS, Recorder

# Both sides sum float32 rounding errors of differently shaped batches: a few 1e-6 in practice.
LIKELIHOOD_TOLERANCE = 1e-4

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ 'which' if m.role == 'user' else 'answer' }} {{ m.content }} ; "
    "{% endfor %}{% if add_generation_prompt %}answer {% endif %}"
)

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

DRAWN = {
    "toy_choice": (0, 2, 3, 7, 20, 23),
    "toy_letters": (1, 4, 9),
    "toy_likely": (0, 5, 6, 11),
    "toy_said": (1, 2, 3, 8, 15),
    "toy_filters": (0, 3, 4, 13),
}
"""A draw that holds the last item of each task, which is longer than the model's context."""

Rows = Mapping[str, Mapping[tuple[int, str], Mapping[str, Any]]]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def engine(request: pytest.FixtureRequest, base: Path, expert: Path) -> TransformersEngine:
    """On each device; lm-eval's model stays on the CPU."""
    built = TransformersEngine(
        base, tokenizer=word_tokenizer(), dtype="float32", device=request.param
    )
    built.load(load_tensors(expert).items())
    return built


def stock_rows(
    folder: Path, samples: Mapping[str, tuple[int, ...]], *, chat: bool = False, **options: Any
) -> Rows:
    """What lm-eval logs: task -> (item, filter) -> row."""
    tokenizer = word_tokenizer()
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    model = HFLM(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        tokenizer=tokenizer,
        batch_size=options.pop("batch_size", 1),
    )
    results = lm_eval.simple_evaluate(
        model=model,
        tasks=list(samples),
        samples={task: list(ids) for task, ids in samples.items() if ids},
        task_manager=TaskManager(include_defaults=False, include_path=str(TASKS)),
        bootstrap_iters=0,
        apply_chat_template=chat,
        **options,
    )
    assert results is not None
    return {
        task: {(row["doc_id"], row["filter"]): row for row in rows}
        for task, rows in results["samples"].items()
    }


def compare(suite: TaskSuite, engine: TransformersEngine, rows: Rows) -> None:
    """Every answer and every metric of the rows' items equals ours."""
    for task, logged in rows.items():
        recorder = Recorder(engine)
        ids = tuple(sorted({item for item, _ in logged}))
        ours = suite.score(recorder, {task: ids})[task]
        filters = list(dict.fromkeys(name for _, name in logged))
        answers = iter(recorder.likely or recorder.said)
        for place, item in enumerate(ids):
            for response in logged[item, filters[0]]["resps"]:
                check_answer(response[0], next(answers))
            for filter_name in filters:
                row = logged[item, filter_name]
                for key, values in ours.metrics.items():
                    name, _, of_filter = key.partition(",")
                    if of_filter in ("", filter_name):
                        assert values[place] == row[name], (task, item, key)
        assert next(answers, None) is None
        assert ours.metrics


def check_answer(stock: Any, ours: Any) -> None:
    if isinstance(ours, str):
        assert ours == stock
    else:
        assert ours[0] == pytest.approx(stock[0], abs=LIKELIHOOD_TOLERANCE)
        assert ours[1] == stock[1]


def test_scores_of_drawn_items_equal_lm_evals(
    suite: TaskSuite, engine: TransformersEngine, expert: Path
) -> None:
    compare(suite, engine, stock_rows(expert, DRAWN))


def test_the_answers_that_are_kept_are_those_that_lm_eval_logs(
    suite: TaskSuite, engine: TransformersEngine, expert: Path
) -> None:
    _, answers = suite.score_and_keep(engine, DRAWN)
    for task, logged in stock_rows(expert, DRAWN).items():
        first_filter = next(name for _, name in logged)
        assert tuple(kept.item for kept in answers[task].items) == DRAWN[task]
        for kept in answers[task].items:
            row = logged[kept.item, first_filter]
            said = [response[0] for response in row["resps"]]
            assert kept.question is not None and kept.question.prompt
            assert row["arguments"][0][0].endswith(kept.question.prompt.removeprefix(ELLIPSIS))
            if kept.generated:
                assert [kept.text] == said
                assert kept.characters == len(said[0])
            else:
                stock = [value for value, _ in said][: len(kept.loglikelihoods)]
                assert kept.loglikelihoods == pytest.approx(stock, abs=LIKELIHOOD_TOLERANCE)
            if isinstance(row["target"], str):
                assert kept.question.target == row["target"]


def test_scores_are_not_all_alike(suite: TaskSuite, engine: TransformersEngine) -> None:
    """Otherwise the comparisons above would prove little."""
    scores = suite.score(engine, {task: tuple(range(suite.size(task))) for task in SCORABLE})
    for task, metric in (
        ("toy_choice", "acc"),
        ("toy_choice", "acc_norm"),
        ("toy_letters", "acc"),
        ("toy_said", "starts"),
        ("toy_shots", "acc"),
    ):
        assert 0.0 < scores[task].mean(metric) < 1.0, (task, metric)


def test_random_few_shot_prompts_are_those_of_a_run_over_the_whole_task(
    suite: TaskSuite, engine: TransformersEngine, expert: Path
) -> None:
    rows = stock_rows(expert, {"toy_shots": ()})
    compare(suite, engine, rows)
    drawn = suite.score(engine, {"toy_shots": (3, 9)})["toy_shots"]
    for item, value in zip(drawn.ids, drawn.metrics["acc"], strict=True):
        assert value == rows["toy_shots"][item, "none"]["acc"]


def test_chat_templates_and_a_number_of_examples_are_applied_as_by_lm_eval(
    engine: TransformersEngine, expert: Path
) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    suite = TaskSuite.load(
        ["toy_shots", "toy_said"],
        folders=[TASKS],
        tokenizer=tokenizer,
        num_fewshot=1,
        apply_chat_template=True,
    )
    samples = {"toy_shots": (), "toy_said": (0, 1, 5)}
    compare(suite, engine, stock_rows(expert, samples, chat=True, num_fewshot=1))


def test_bfloat16_choices_equal_lm_evals(suite: TaskSuite, base: Path, expert: Path) -> None:
    """In bfloat16 choices tie, so log-probabilities must be rounded where lm-eval rounds them."""
    engine = TransformersEngine(base, tokenizer=word_tokenizer(), dtype="bfloat16", batch_size=1)
    engine.load(load_tensors(expert).items())
    model = AutoModelForCausalLM.from_pretrained(expert, dtype=torch.bfloat16)
    ids = tuple(range(24))
    results = lm_eval.simple_evaluate(
        model=HFLM(model, tokenizer=word_tokenizer(), batch_size=1),
        tasks=["toy_choice"],
        task_manager=TaskManager(include_defaults=False, include_path=str(TASKS)),
        bootstrap_iters=0,
    )
    assert results is not None
    recorder = Recorder(engine)
    ours = suite.score(recorder, {"toy_choice": ids})["toy_choice"]
    rows = sorted(results["samples"]["toy_choice"], key=lambda row: row["doc_id"])
    assert [row["acc"] for row in rows] == list(ours.metrics["acc"])
    stock = [response[0][0] for row in rows for response in row["resps"]]
    # One row a batch on both sides: the same arithmetic, rounded alike.
    assert [answer[0] for answer in recorder.likely] == stock

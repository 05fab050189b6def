"""What is kept of answers: what the model said and how it ended; scores are the same without it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from evomerge.evaluate import questions
from evomerge.evaluate import suite as suite_module
from evomerge.evaluate.answers import ItemAnswer, Question, TaskAnswers, bounded, shorten
from evomerge.evaluate.candidate import ItemIds
from evomerge.evaluate.engines.base import CountingEngine, Generated, Stopping
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.questions import MOST_CHARACTERS, keep_answer, question_of
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer
from tests.evaluate.conftest import SCORABLE, TASKS, Recorder
from tests.evaluate.test_engine import prompt, some_tokens

QUESTION = Question(prompt="1 + 1 =", target="2")


@pytest.fixture
def items(suite: TaskSuite) -> ItemIds:
    return {task: suite.items(task, "search") for task in SCORABLE}


def test_answers_are_kept_of_the_scores_that_come_without_them(
    suite: TaskSuite, engine: TransformersEngine, items: ItemIds
) -> None:
    expected = suite.score(engine, items)
    scores, answers = suite.score_and_keep(engine, items)
    assert scores == expected
    assert repr(scores) == repr(expected)
    assert {task: tuple(each.item for each in kept.items) for task, kept in answers.items()} == {
        task: tuple(ids) for task, ids in items.items()
    }
    assert suite.score_and_keep(engine, items)[1] == answers


def test_they_are_what_the_engine_said(
    suite: TaskSuite, engine: TransformersEngine, items: ItemIds
) -> None:
    recorder = Recorder(engine)
    suite.score(recorder, items)
    _, answers = suite.score_and_keep(engine, items)
    kept = [each for task in answers.values() for each in task.items]
    assert [each.text for each in kept if each.generated] == recorder.said
    likely = [value for each in kept for value in each.loglikelihoods]
    assert likely == [value for value, _ in recorder.likely]


def test_an_item_says_what_it_asks_and_wants(suite: TaskSuite, engine: TransformersEngine) -> None:
    _, answers = suite.score_and_keep(engine, {"toy_choice": (0, 1), "toy_said": (2,)})
    first = answers["toy_choice"].items[0]
    assert first.question is not None
    assert first.question.prompt.startswith("question ")
    assert len(first.question.choices) == len(first.loglikelihoods) > 1
    assert first.question.target in first.question.choices
    best = max(first.loglikelihoods)
    assert first.said == first.question.choices[first.loglikelihoods.index(best)]
    [said] = answers["toy_said"].items
    assert said.question is not None
    assert (said.question.choices, said.chosen) == ((), None)
    assert said.question.target
    assert answers["toy_said"].lower_is_better == ("words",)


def test_an_answer_is_cut_off_if_nothing_ended_it(engine: TransformersEngine) -> None:
    assert isinstance(engine, CountingEngine)
    asked = [prompt(some_tokens(4, seed=seed), limit_tokens=9) for seed in range(6)]
    whole = engine.generate_counted(asked)
    assert [each.text for each in whole] == engine.generate(asked)
    end = word_tokenizer().eos_token_id
    tokens = engine.answer(asked)
    assert [each.tokens for each in whole] == [len(each) for each in tokens]
    assert [each.cut for each in whole] == [each[-1] != end for each in tokens]
    assert {each.cut for each in whole} == {True, False}
    for request, answer in zip(asked, whole, strict=True):
        if not answer.cut:
            continue
        word = answer.text.split()[4]
        stopped = replace(request, stop=(word,))
        [ended] = engine.generate_counted([stopped])
        assert ended.text == answer.text.split(word)[0]
        assert not ended.cut
        assert ended.tokens is not None and ended.tokens <= 5
        # Its last token is the last that is allowed, and ends it.
        [just] = engine.generate_counted([replace(stopped, limit_tokens=ended.tokens)])
        assert (just.tokens, just.cut) == (ended.tokens, False)


def test_an_end_token_ends_an_answer() -> None:
    tokenizer = word_tokenizer()
    stopping = Stopping(tokenizer, end_tokens=[tokenizer.eos_token_id])
    assert not stopping.counted([5, 6, tokenizer.eos_token_id], ()).cut
    assert stopping.counted([5, 6, 7], ()) == Generated(
        text=tokenizer.decode([5, 6, 7]), tokens=3, cut=True
    )


def test_an_engine_that_does_not_count_leaves_it_unknown(
    suite: TaskSuite, engine: TransformersEngine
) -> None:
    items = {"toy_said": (0, 1, 2)}
    _, counted = suite.score_and_keep(engine, items)
    scores, answers = suite.score_and_keep(Recorder(engine), items)
    assert scores == suite.score(engine, items)
    kept = answers["toy_said"].items
    assert [each.text for each in kept] == [each.text for each in counted["toy_said"].items]
    assert {(each.tokens, each.cut) for each in kept} == {(None, None)}
    assert all(each.tokens for each in counted["toy_said"].items)


def test_a_long_answer_is_kept_to_a_limit_and_says_so() -> None:
    text = "a" * (MOST_CHARACTERS + 7)
    kept = keep_answer(3, QUESTION, [Generated(text=text, tokens=50, cut=True)])
    assert kept.text == text[:MOST_CHARACTERS]
    assert (kept.item, kept.characters, kept.tokens, kept.cut) == (3, len(text), 50, True)
    half = keep_answer(0, QUESTION, [Generated(text="\udc80b")])
    assert half.text == "?b"


def test_texts_of_one_model_have_a_limit_and_numbers_have_none() -> None:
    given = TaskAnswers(
        items=tuple(
            ItemAnswer(item=item, question=QUESTION, text="é" * 50, tokens=9, cut=False)
            for item in range(10)
        )
    )
    each = 100 + len("1 + 1 =2")
    kept = bounded({"long": given, "other": given}, most_bytes=2 * 3 * each)
    for task in ("long", "other"):
        answers = kept[task].items
        assert [answer.text is None for answer in answers] == [False] * 3 + [True] * 7
        assert [answer.question is None for answer in answers] == [False] * 3 + [True] * 7
        assert {(answer.tokens, answer.cut) for answer in answers} == {(9, False)}
    assert bounded({"long": given}) == {"long": given}


def test_the_limit_holds_for_what_a_suite_keeps(
    suite: TaskSuite, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite_module, "bounded", partial(bounded, most_bytes=0))
    _, answers = suite.score_and_keep(engine, {"toy_said": (0, 1)})
    assert [(each.question, each.text) for each in answers["toy_said"].items] == [(None, None)] * 2


def test_every_text_of_a_question_has_a_limit(
    suite: TaskSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = suite._task("toy_choice")
    item = task._items[0]
    whole = question_of(task._task, item.document, item.instances)
    limits = {"PROMPT_CHARACTERS": 6, "_TARGET_CHARACTERS": 3, "_CHOICE_CHARACTERS": 2}
    for name, limit in limits.items():
        monkeypatch.setattr(questions, name, limit)
    short = question_of(task._task, item.document, item.instances)
    assert short.prompt == "…" + whole.prompt[-5:]
    assert short.target in (whole.target, whole.target[:2] + "…")
    assert short.choices == tuple(shorten(choice, 2) for choice in whole.choices)
    monkeypatch.setattr(task._task, "doc_to_target", lambda document: "wanted")
    assert question_of(task._task, item.document, item.instances).target == "wa…"


def test_a_tasks_own_code_that_fails_or_draws_here_changes_nothing(
    engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("toy_said", "toy_choice")
    loaded = TaskSuite.load(names, folders=[TASKS], tokenizer=word_tokenizer())
    items = dict.fromkeys(names, (0, 1, 2))
    expected, before = loaded.score_and_keep(engine, items)
    again = TaskSuite.load(names, folders=[TASKS], tokenizer=word_tokenizer())
    task = again._task("toy_said")._task

    def fail(document: object) -> str:
        random.seed(7)
        raise SystemExit(3)

    monkeypatch.setattr(task, "doc_to_target", fail)
    scores, answers = again.score_and_keep(engine, items)
    assert scores == expected
    assert [each.question.target for each in answers["toy_said"].items if each.question] == [""] * 3
    assert answers["toy_choice"] == before["toy_choice"]


def test_the_likelihoods_without_a_context_are_no_choices(suite: TaskSuite) -> None:
    task = suite._task("toy_choice")
    item = task._items[0]
    asked = question_of(task._task, item.document, item.instances)
    count = len(asked.choices)
    likely = [(-float(number), False) for number in range(2 * count)]
    kept = keep_answer(0, asked, likely)
    assert kept.loglikelihoods == tuple(value for value, _ in likely[:count])
    assert kept.chosen == 0
    assert math.isclose(max(kept.loglikelihoods), 0.0)

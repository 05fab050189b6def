"""The suite: tasks found by name, built once, scored again and again without a trace."""

from __future__ import annotations

import random
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from evomerge.errors import TaskError
from evomerge.evaluate.catalogue import TaskCatalogue
from evomerge.evaluate.engines.base import NonFiniteLogits, Unscorable
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.suite import TaskSuite
from evomerge.job import SplitSpec
from tests.checkpoints import load_tensors, word_tokenizer
from tests.evaluate.conftest import SCORABLE, TASKS


def load(*names: str, folder: Path = TASKS, split: SplitSpec | None = None) -> TaskSuite:
    return TaskSuite.load(names, folders=[folder], tokenizer=word_tokenizer(), split=split)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    shutil.copytree(TASKS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_scoring_repeats_exactly_whatever_was_scored_between(
    suite: TaskSuite, engine: TransformersEngine, base: Path, expert: Path
) -> None:
    items = {task: suite.items(task, "search") for task in SCORABLE}
    first = suite.score(engine, items)
    engine.load(load_tensors(base).items())
    other = suite.score(engine, {task: suite.items(task, "test") for task in SCORABLE[:4]})
    assert other != first
    engine.load(load_tensors(expert).items())
    assert suite.score(engine, items) == first


def test_an_items_score_does_not_depend_on_the_items_beside_it(
    suite: TaskSuite, engine: TransformersEngine
) -> None:
    whole = suite.score(engine, {task: tuple(range(suite.size(task))) for task in SCORABLE})
    for task in SCORABLE:
        ids = suite.items(task, "search")[1::2]
        part = suite.score(engine, {task: ids})[task]
        assert part.ids == ids
        for metric, values in part.metrics.items():
            assert values == tuple(whole[task].metrics[metric][index] for index in ids)


def test_global_random_generators_are_neither_used_nor_moved(
    engine: TransformersEngine, base: Path
) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(1))

    def seed(value: int) -> None:
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)

    results = []
    for value in (1, 2):
        seed(value)
        undisturbed = draw()
        seed(value)
        loaded = load("toy_shots", "toy_said", "toy_shuffled")
        items = {"toy_shots": (0, 1, 2), "toy_said": (3, 4), "toy_shuffled": tuple(range(9))}
        results.append((loaded.score(engine, items), loaded.task_files))
        assert draw() == undisturbed
    assert results[0] == results[1]


def test_weights_that_are_not_finite_fail_the_candidate(
    suite: TaskSuite, engine: TransformersEngine, expert: Path
) -> None:
    tensors = load_tensors(expert)
    tensors["model.embed_tokens.weight"][:] = float("nan")
    engine.load(tensors.items())
    for task in ("toy_choice", "toy_said"):
        with pytest.raises(NonFiniteLogits):
            suite.score(engine, {task: (0, 1)})
    engine.load(load_tensors(expert).items())
    assert suite.score(engine, {"toy_choice": (0, 1)})["toy_choice"].ids == (0, 1)


def test_a_task_whose_own_code_fails_on_an_answer_fails_the_candidate(
    copied: Path, engine: TransformersEngine
) -> None:
    (copied / "scoring.py").write_text(
        "def score_form(doc, results):\n    return {'words': 1 / 0}\n"
    )
    with pytest.raises(Unscorable, match=r"task toy_said: its own code failed on item 0 \(ZeroD"):
        load("toy_said", folder=copied).score(engine, {"toy_said": (0,)})
    (copied / "scoring.py").write_text(
        "def score_form(doc, results):\n    return {'words': float('nan'), 'starts': 1}\n"
    )
    with pytest.raises(Unscorable, match=r"item 0, words .*the value is nan"):
        load("toy_said", folder=copied).score(engine, {"toy_said": (0,)})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1e308", "the value 1e+308 is too large to make a mean of"),
        ("-float('inf')", "the value is -inf"),
        ("10 ** 400", "OverflowError"),
        ("1 + 2j", "is no number"),
        ("numpy.complex128(1)", "is no number"),
        ("'0.5'", "'0.5' is no number"),
        ("None", "TypeError"),
        ("[0.5, 0.5]", "is no number"),
        ("numpy.array([0.5])", "is no number"),
    ],
)
def test_a_value_that_no_score_can_be_made_of_fails_the_candidate(
    copied: Path, engine: TransformersEngine, value: str, reason: str
) -> None:
    (copied / "scoring.py").write_text(
        "import numpy\n"
        "def score_form(doc, results):\n"
        f"    return {{'words': {value} if doc['right'] else 1, 'starts': 1}}\n"
    )
    loaded = load("toy_said", folder=copied)
    item = r"task toy_said: its own code failed on item \d, words \("
    with pytest.raises(Unscorable, match=item + ".*" + re.escape(reason)):
        loaded.score(engine, {"toy_said": tuple(range(8))})


def test_numbers_of_every_kind_are_numbers(copied: Path, engine: TransformersEngine) -> None:
    values = "[True, numpy.bool_(True), numpy.float32(1), numpy.array(1), Fraction(1), Decimal(1)]"
    (copied / "scoring.py").write_text(
        "import numpy\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
        f"VALUES = {values}\n"
        "def score_form(doc, results):\n"
        "    return {'words': VALUES.pop(), 'starts': 1}\n"
    )
    scores = load("toy_said", folder=copied).score(engine, {"toy_said": tuple(range(6))})
    assert scores["toy_said"].metrics["words"] == (1.0,) * 6


@pytest.mark.parametrize(
    "statement",
    [
        "raise SystemExit(0)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "score_form(doc, results)",
    ],
)
def test_whatever_a_task_raises_fails_the_candidate_and_nothing_else(
    copied: Path, engine: TransformersEngine, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)  # as a command has it
    (copied / "scoring.py").write_text(f"def score_form(doc, results):\n    {statement}\n")
    with pytest.raises(Unscorable, match="task toy_said: its own code failed on item 0"):
        load("toy_said", folder=copied).score(engine, {"toy_said": (0,)})


@pytest.mark.parametrize("error", ["MemoryError", "KeyboardInterrupt"])
def test_an_interrupt_and_a_machine_run_short_are_no_fault_of_a_task(
    copied: Path, engine: TransformersEngine, error: str
) -> None:
    (copied / "scoring.py").write_text(f"def score_form(doc, results):\n    raise {error}\n")
    with pytest.raises({"MemoryError": MemoryError}.get(error, KeyboardInterrupt)):
        load("toy_said", folder=copied).score(engine, {"toy_said": (0,)})


def test_a_task_that_exits_while_it_is_loaded_is_refused(copied: Path) -> None:
    (copied / "scoring.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(TaskError, match=r"task toy_said: cannot be loaded \(SystemExit: 0\)"):
        load("toy_said", folder=copied)


def test_a_metric_that_some_item_lacks_is_left_out(
    copied: Path, engine: TransformersEngine
) -> None:
    (copied / "scoring.py").write_text(
        "def score_form(doc, results):\n"
        "    found = {'starts': 1}\n"
        "    if doc['right'] == 0:\n"
        "        found['words'] = 2\n"
        "    return found\n"
    )
    scores = load("toy_said", folder=copied).score(engine, {"toy_said": tuple(range(8))})
    assert set(scores["toy_said"].metrics) == {"starts"}


def test_metrics_are_means_named_as_lm_eval_prints_them(suite: TaskSuite) -> None:
    assert suite.metrics("toy_choice") == {"acc": True, "acc_norm": True}
    assert suite.metrics("toy_likely") == {"acc": True}
    assert suite.metrics("toy_said") == {"words": False, "starts": True}
    assert suite.metrics("toy_filters") == {
        "exact_match,strict-match": True,
        "exact_match,loose-match": True,
    }
    assert suite.metric("toy_filters", "exact_match").key == "exact_match,strict-match"
    assert suite.metric("toy_said", "words,first-word").key == "words"
    assert not suite.metric("toy_said", "words").higher_is_better


@pytest.mark.parametrize(
    ("task", "metric", "message"),
    [
        ("toy_choice", "mcc", r"mcc is no mean over items.*usable here: acc, acc_norm"),
        ("toy_choice", "f1", r"no metric f1; usable here: acc, acc_norm"),
        ("toy_filters", "exact_match,other", r"usable here: exact_match,strict-match, exact_"),
        ("toy_choice", "acc,other", r"no metric acc,other"),
        ("toy_group", "acc", r"task toy_group: not loaded"),
    ],
)
def test_metrics_that_cannot_be_used_are_named_with_those_that_can(
    suite: TaskSuite, task: str, metric: str, message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        suite.metric(task, metric)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("toy_group", r"a group of tasks; name the members you want: toy_choice, toy_likely"),
        ("toy_rolling", r"output_type loglikelihood_rolling has no score per item"),
        ("toy_sampled", r"generation_kwargs ask for sampling.*do_sample: false"),
    ],
)
def test_tasks_that_cannot_be_scored_item_by_item_are_refused(task: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        load(task)


@pytest.mark.parametrize("answer", [-1, "green", [-1]])
@pytest.mark.parametrize("labelled", [0, 1])
def test_items_whose_answers_are_held_back_are_no_task(
    tmp_path: Path, answer: object, labelled: int
) -> None:
    """Every model would score 0; where one item has its answer, the others count as wrong."""
    document = {
        "task": "held_back",
        "custom_dataset": "!function data.load",
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "doc_to_choice": ["red", "blue"],
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    text = yaml.safe_dump(document).replace("'!function data.load'", "!function data.load")
    (tmp_path / "held_back.yaml").write_text(text)
    rows = [{"question": f"which {n}", "answer": answer} for n in range(40)]
    rows += [{"question": "what", "answer": [1] if isinstance(answer, list) else 1}] * labelled
    (tmp_path / "data.py").write_text(
        "import datasets\n"
        f"def load(**_):\n    return {{'test': datasets.Dataset.from_list({rows!r})}}\n"
    )
    if isinstance(answer, str) and labelled:
        pytest.skip("a column is of one type")
    if labelled:
        assert load("held_back", folder=tmp_path).tasks == ("held_back",)
        return
    with pytest.raises(TaskError, match=r"held_back: no item's answer is among its choices"):
        load("held_back", folder=tmp_path)


def test_names_are_looked_up_among_lm_evals_own_tasks_last() -> None:
    """The one test that reads lm-eval's own index, which takes seconds."""
    catalogue = TaskCatalogue([TASKS])
    with pytest.raises(TaskError, match=r"task toy_choise: unknown; did you mean toy_choice"):
        catalogue.find("toy_choise")
    with pytest.raises(TaskError, match=r"task helaswag: unknown; did you mean hellaswag"):
        catalogue.find("helaswag")
    with pytest.raises(TaskError, match=r"task ai2_arc: a group of tasks; .*arc_challenge, arc_ea"):
        catalogue.find("ai2_arc")
    with pytest.raises(TaskError, match=r"task q: unknown; check the name, or name its folder"):
        catalogue.find("q")


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"evaluation\.task_folders: .*nowhere is no folder"):
        load("toy_choice", folder=tmp_path / "nowhere")


def test_a_task_that_cannot_be_loaded_names_its_file(copied: Path) -> None:
    (copied / "dataset.py").write_text("def load(**_):\n    raise OSError('no such data')\n")
    with pytest.raises(TaskError, match=r"toy_choice: cannot be loaded \(OSError: no such data\)"):
        load("toy_choice", folder=copied)


def test_a_continuation_without_a_token_of_its_own_is_refused(copied: Path) -> None:
    text = (copied / "toy_letters.yaml").read_text()
    (copied / "toy_letters.yaml").write_text(text.replace('["yes", "no", "not true"]', '["", ""]'))
    with pytest.raises(TaskError, match=r"toy_letters: .*(no token of its own|cannot be loaded)"):
        load("toy_letters", folder=copied)


def test_a_chat_template_must_exist_to_be_applied() -> None:
    with pytest.raises(TaskError, match=r"apply_chat_template: the tokenizer has no chat template"):
        TaskSuite.load(
            ["toy_choice"], folders=[TASKS], tokenizer=word_tokenizer(), apply_chat_template=True
        )


def test_a_folder_of_the_users_comes_before_the_shipped_tasks(copied: Path) -> None:
    text = (copied / "toy_choice.yaml").read_text()
    (copied / "mine.yaml").write_text(text.replace("task: toy_choice", "task: kana_translation"))
    assert load("kana_translation", folder=copied).size("kana_translation") == 24


def test_splits_part_the_items_of_a_task(suite: TaskSuite) -> None:
    for task in SCORABLE:
        parts = [suite.items(task, split) for split in ("search", "validation", "test")]
        assert sorted(index for part in parts for index in part) == list(range(suite.size(task)))


def test_a_split_without_items_says_how_many_there_are(copied: Path) -> None:
    shares = SplitSpec(search=0.98, validation=0.01, test=0.01)
    suite = load("toy_likely", split=shares)
    with pytest.raises(
        TaskError,
        match=r"toy_likely: none of its 12 items falls in the test split \(share 0\.01\); raise",
    ):
        suite.items("toy_likely", "test")


def test_task_files_change_with_what_defines_a_task(copied: Path) -> None:
    before = load("toy_said", folder=copied).task_files
    assert {"mine/toy_said.yaml", "mine/scoring.py", "mine/dataset.py"} <= set(before)
    assert "items of toy_said" in before
    (copied / "scoring.py").write_text((copied / "scoring.py").read_text() + "\n# changed\n")
    (copied / "README.md").write_text("words change no score")
    after = load("toy_said", folder=copied).task_files
    assert {key for key in before if before[key] != after[key]} == {"mine/scoring.py"}
    (copied / "dataset.py").write_text(
        (copied / "dataset.py").read_text().replace('" equals"', '" plus"')
    )
    moved = load("toy_said", folder=copied).task_files
    assert {key for key in after if after[key] != moved[key]} == {
        "mine/dataset.py",
        "items of toy_said",
    }


def test_task_files_do_not_depend_on_where_the_folder_lies(copied: Path, tmp_path: Path) -> None:
    before = load("toy_said", folder=copied).task_files
    elsewhere = tmp_path / "elsewhere" / "mine"
    shutil.copytree(copied, elsewhere)
    assert load("toy_said", folder=elsewhere).task_files == before
